package debian

import (
	"fmt"
	"io"
	"strings"
)

// titles are the table's parts.
var titles = map[string]string{
	"docker":    "Containers: docker",
	"podman":    "Containers: podman, buildah, skopeo",
	"sandboxes": "Sandboxes, namespaces, other containers",
	"packaging": "Making Debian packages, in the order of salsa-ci's jobs",
	"trees":     "Debian trees made by root, and what is done with them",
	"services":  "Daemons and users",
	"system":    "What programs find below them",
	"network":   "Network",
	"refused":   "What does not work, and why",
}

// WriteTable writes the tables of DEBIAN.md.
func WriteTable(to io.Writer) {
	for _, group := range Groups {
		fmt.Fprintf(to, "\n## %s\n\n", titles[group.Name])
		if group.Name == refusals.Name {
			writeRefusals(to, group)
			continue
		}
		fmt.Fprintln(to, "| what works | tried in machines of | to know |\n|---|---|---|")
		for _, c := range group.Cases {
			images, backends := group.Images, group.Backends
			if len(c.Images) > 0 {
				images = c.Images
			}
			if len(c.Backends) > 0 {
				backends = c.Backends
			}
			fmt.Fprintf(to, "| %s | %s; %s | %s |\n", c.Name, strings.Join(images, ", "), strings.Join(backends, ", "), c.Note)
		}
	}
}

func writeRefusals(to io.Writer, group Group) {
	fmt.Fprintln(to, "| what does not work | why | instead |\n|---|---|---|")
	for _, c := range group.Cases {
		fmt.Fprintf(to, "| %s | %s | %s |\n", c.Name, c.Refused, c.Note)
	}
}
