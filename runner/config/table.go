package config

import (
	"fmt"
	"strings"
)

// sections are the headings of the tables, each with the key that comes first below it.
var sections = map[string]string{
	"state_dir":     "Directories and programs",
	"backend":       "A machine and its limits",
	"network":       "What a machine may reach",
	"min_free_disk": "All machines together",
	"cache_max":     "Caches of jobs",
	"images":        "Names of images",
	"services":      "Services of jobs",
	"oci_images":    "Images of registries",
	"chroot_suite":  "Builds of images",
}

// Section is the heading of the table that a key begins, "" if it begins none.
func (k Key) Section() string { return sections[k.Name] }

// Tables is the documentation of all settings, in Markdown.
func Tables() string {
	var out strings.Builder
	tick := map[bool]string{true: "yes", false: ""}
	for _, key := range Keys {
		if title := key.Section(); title != "" {
			fmt.Fprintf(&out, "\n## %s\n\n| key | default | file | playbook | what it does |\n|---|---|---|---|---|\n", title)
		}
		value := ""
		if key.Default != "" {
			value = "`" + key.Default + "`"
		}
		fmt.Fprintf(&out, "| `%s` | %s | %s | %s | %s |\n", key.Name, value, tick[key.Host], tick[key.Image], key.Doc)
	}
	return out.String()
}
