package config

import (
	"fmt"
	"strings"
)

// Table is the documentation of all settings, in Markdown.
func Table() string {
	var out strings.Builder
	out.WriteString("| key | default | file | playbook | what it does |\n|---|---|---|---|---|\n")
	tick := map[bool]string{true: "yes", false: ""}
	for _, key := range Keys {
		value := ""
		if key.Default != "" {
			value = "`" + key.Default + "`"
		}
		fmt.Fprintf(&out, "| `%s` | %s | %s | %s | %s |\n", key.Name, value, tick[key.Host], tick[key.Image], key.Doc)
	}
	return out.String()
}
