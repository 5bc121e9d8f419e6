package config

import (
	"fmt"
	"regexp"
	"strings"
)

// File is a configuration file in which every setting of a host stands, commented out,
// with its default.
func File() string {
	var out strings.Builder
	out.WriteString(`# Configuration of nspawn-runner: nspawn-runner.yaml(5).
#
# Each setting stands here with its default, which applies as long as the line begins
# with "#". "(playbook)" means that the playbook of an image can set it too, for that image.
# Pages that are named here, such as jobs.md, are in /usr/share/doc/nspawn-runner/docs.
`)
	for _, key := range Keys {
		if title := key.Section(); title != "" {
			fmt.Fprintf(&out, "\n## %s\n", title)
		}
		if !key.Host {
			continue
		}
		out.WriteString("\n")
		text := key.Plain()
		if key.Image {
			text += " (playbook)"
		}
		for _, line := range wrap(text, 86) {
			out.WriteString("# " + line + "\n")
		}
		fmt.Fprintf(&out, "#%s\n", strings.TrimSpace(key.Name+": "+key.Default))
	}
	return out.String()
}

// Plain is what Doc says, with the names of other pages in place of links to them.
func (k Key) Plain() string { return link.ReplaceAllString(k.Doc, "$1 ($2)") }

// link is a link of Markdown: its words, and the page without the heading in it.
var link = regexp.MustCompile(`\[([^]]+)\]\(([^)#]+)[^)]*\)`)

// wrap breaks a text into lines of at most so many bytes, unless a word is longer.
func wrap(text string, width int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		line = strings.TrimSpace(line + " " + word)
	}
	return append(lines, line)
}
