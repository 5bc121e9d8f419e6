package debian

import (
	"fmt"
	"io"
	"strings"
)

// titles are the table's parts.
var titles = map[string]string{
	"docker":    "Containers: docker",
	"podman":    "Containers: podman, buildah and skopeo",
	"sandboxes": "Sandboxes, namespaces and other containers",
	"packaging": "Building Debian packages, in the order of the jobs of salsa-ci",
	"trees":     "Debian trees made by root",
	"services":  "Daemons and users",
	"system":    "System",
	"network":   "Network",
	"refused":   "What does not work, and why",
}

// WriteTable writes the tables of docs/debian.md.
func WriteTable(to io.Writer) {
	for _, group := range Groups {
		fmt.Fprintf(to, "\n## %s\n\n", titles[group.Name])
		if group.Name == refusals.Name {
			writeRefusals(to, group)
			continue
		}
		fmt.Fprintln(to, "| what works | tested in images, on backends | notes |\n|---|---|---|")
		for _, c := range group.Cases {
			images, backends := group.Images, group.Backends
			if len(c.Images) > 0 {
				images = c.Images
			}
			if len(c.Backends) > 0 {
				backends = c.Backends
			}
			note := c.Note
			if c.Kernel != "" {
				note = strings.TrimPrefix(note+"; if the host's kernel is "+c.Kernel+" or newer", "; ")
			}
			fmt.Fprintf(to, "| %s | %s; %s | %s |\n", c.Name, strings.Join(images, ", "), strings.Join(backends, ", "), note)
		}
	}
}

func writeRefusals(to io.Writer, group Group) {
	fmt.Fprintln(to, "| what does not work | why | instead |\n|---|---|---|")
	for _, c := range group.Cases {
		fmt.Fprintf(to, "| %s | %s | %s |\n", c.Name, c.Refused, c.Note)
	}
}
