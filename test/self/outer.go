package self

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// outerVariables are arguments of the simulator: the variables that a GitLab
// project would have here to reach the outside as this machine does, by its
// proxies, its sources of Go modules, and the certificates it trusts.
func outerVariables(ctx context.Context) ([]string, error) {
	var args []string
	add := func(flag, key, value string) { args = append(args, flag, key+"="+value) }
	for _, key := range []string{"http_proxy", "https_proxy", "no_proxy"} {
		if value := os.Getenv(key); value != "" {
			add("--variable", key, value)
		}
	}
	out, err := exec.CommandContext(ctx, "go", "env", "-changed", "-json", "GOPROXY", "GONOPROXY", "GOSUMDB", "GONOSUMDB").Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	changed := map[string]string{}
	if err := json.Unmarshal(out, &changed); err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	for _, key := range slices.Sorted(maps.Keys(changed)) {
		add("--variable", key, changed[key])
	}
	certificates, err := certificates()
	if err != nil {
		return nil, err
	}
	if certificates != "" {
		// Go reads this file, and besides it /etc/ssl/certs.
		add("--file-variable", "SSL_CERT_FILE", certificates)
	}
	return args, nil
}

// certificates are the authorities that this machine trusts and a fresh Debian
// does not: see update-ca-certificates(8).
func certificates() (string, error) {
	files, err := filepath.Glob("/usr/local/share/ca-certificates/*.crt")
	if err != nil {
		return "", err
	}
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&all, "%s\n", text)
	}
	return all.String(), nil
}
