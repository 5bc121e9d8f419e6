package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestTheDoctorIsContentWithTheSettingsThatItAdvises(t *testing.T) {
	sysctls := t.TempDir()
	for _, line := range regexp.MustCompile(`(?m)^-(\S+) = (\d+)$`).FindAllStringSubmatch(Sysctls(), -1) {
		path := filepath.Join(sysctls, strings.ReplaceAll(line[1], ".", "/"))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, fmt.Appendln(nil, line[2]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, limit := range sharedLimits {
		found := limit.check(sysctls, filepath.Join(sysctls, "file"))
		if len(found) != 1 || found[0].State != Good {
			t.Errorf("%s: %+v", limit.sysctl, found)
		}
	}
}

func TestNoNamespaceOfTheKernelIsMissingInTheSettings(t *testing.T) {
	counted, err := filepath.Glob("/proc/sys/user/max_*_namespaces")
	if err != nil || counted == nil {
		t.Skip("this kernel counts no namespaces")
	}
	for _, path := range counted {
		if !strings.Contains(Sysctls(), "-user."+filepath.Base(path)+" = ") {
			t.Errorf("%s is not in the file", path)
		}
	}
}
