package debian

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// titles are the table's parts.
var titles = map[string]string{
	"docker":    "Containers: docker",
	"podman":    "Containers: podman, buildah, skopeo",
	"sandboxes": "Sandboxes, namespaces, other containers",
	"packaging": "Debian packages, in the order of salsa-ci's jobs",
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
		fmt.Fprintf(to, "Machines of %s, on %s.\n\n", words(group.Images), words(group.Backends))
		fmt.Fprintln(to, "| what works | to know |\n|---|---|")
		for _, c := range group.Cases {
			fmt.Fprintf(to, "| %s | %s |\n", c.Name, c.note())
		}
	}
}

func writeRefusals(to io.Writer, group Group) {
	fmt.Fprintln(to, "| what does not work | why | instead |\n|---|---|---|")
	for _, c := range group.Cases {
		fmt.Fprintf(to, "| %s | %s | %s |\n", c.Name, c.Refused, c.Note)
	}
}

// note is what there is to know of a case, and where it runs if not everywhere.
func (c Case) note() string {
	var parts []string
	if c.Note != "" {
		parts = append(parts, c.Note)
	}
	if len(c.Images) > 0 {
		parts = append(parts, "only in images of "+words(c.Images))
	}
	if len(c.Backends) > 0 {
		parts = append(parts, "only on "+words(c.Backends))
	}
	return strings.Join(parts, "; ")
}

// words is a list as a sentence has it.
func words(list []string) string {
	list = slices.Clone(list)
	if last := len(list) - 1; last > 0 {
		list = append(list[:last-1], list[last-1]+" and "+list[last])
	}
	return strings.Join(list, ", ")
}
