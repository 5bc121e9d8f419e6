package texts

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"
)

// title heads each manual page.
const title = "nspawn-runner"

// writeCommands writes a manual page for the program and one for each of its commands.
func writeCommands(root *cobra.Command, dir string) error {
	root.DisableAutoGenTag = true // no line on what made the page
	root.InitDefaultCompletionCmd()
	return writeCommand(root, dir)
}

// writeCommand writes the page of a command and those of the commands below it.
func writeCommand(c *cobra.Command, dir string) error {
	for _, below := range c.Commands() {
		if below.IsAvailableCommand() && !below.IsAdditionalHelpTopicCommand() {
			if err := writeCommand(below, dir); err != nil {
				return err
			}
		}
	}
	name := strings.ReplaceAll(c.CommandPath(), " ", "-")
	c.InitDefaultHelpFlag()
	c.InitDefaultVersionFlag()
	c.NonInheritedFlags().VisitAll(nameValue)
	c.InheritedFlags().VisitAll(nameValue)
	var page bytes.Buffer
	if err := doc.GenMan(c, &doc.GenManHeader{Title: strings.ToUpper(name), Section: "1", Source: title}, &page); err != nil {
		return fmt.Errorf("manual page of %s: %w", name, err)
	}
	before, after, found := strings.Cut(flags.ReplaceAllString(page.String(), ".TP\n$1 \\fI$2\\fP\n$3\n"), ".SH SEE ALSO\n")
	if !found {
		return fmt.Errorf("manual page of %s: no section SEE ALSO", name)
	}
	if c.HasAvailableSubCommands() {
		before = strings.Replace(before, "[flags]", "COMMAND", 1)
		before += section(commandList(c))
	}
	if !c.HasParent() {
		before += section(exitStatus) + section(files)
		after = "\\fBnspawn-runner.yaml(5)\\fP, \\fBnspawn-runner-playbook(5)\\fP, " + after
	}
	return os.WriteFile(filepath.Join(dir, name+".1"), []byte(before+".SH SEE ALSO\n"+after), 0o644)
}

// commandList lists the commands below one, by their groups if there are any, in Markdown.
func commandList(above *cobra.Command) string {
	var out strings.Builder
	fmt.Fprintf(&out, "# COMMANDS\nEach command has a page of its own: **man %s-**COMMAND.\n", strings.ReplaceAll(above.CommandPath(), " ", "-"))
	list := func(group string) {
		for _, c := range above.Commands() {
			if c.GroupID == group && c.IsAvailableCommand() {
				fmt.Fprintf(&out, "\n**%s**\n: %s.\n", c.Name(), c.Short)
			}
		}
	}
	list("")
	for _, group := range above.Groups() {
		fmt.Fprintf(&out, "\n### %s\n", strings.TrimSuffix(group.Title, ":"))
		list(group.ID)
	}
	return out.String()
}

// nameValue has a flag show the name of its value where it has no default, and its usage
// without the marks of that name. The command line is used for nothing else then.
func nameValue(f *pflag.Flag) {
	name, usage := pflag.UnquoteUsage(f)
	f.Usage = usage
	switch {
	case f.NoOptDefVal != "": // a switch
		f.DefValue = ""
	case f.DefValue == "" || f.DefValue == "[]" || f.DefValue == "0":
		f.DefValue = strings.ToUpper(name)
	}
	f.NoOptDefVal = ""
}

// flags are a flag, its value and its usage, as cobra writes them on a page.
var flags = regexp.MustCompile(`(?:\.PP\n)?((?:\\fB-[a-z]\\fP, )?\\fB--[a-z-]+\\fP)="?([^"\n]*)"?\n\t(.*)\n`)

// roff is a page of the manual, or a part of one, that was written in Markdown.
func roff(markdown string) []byte { return md2man.Render([]byte(markdown)) }

// section is a section of a page, from Markdown. A heading alone would be a page's title.
func section(markdown string) string {
	_, text, _ := strings.Cut(string(roff("% a 1\n"+markdown)), ".SH ")
	return ".SH " + text
}

// What the page of the program has beside what the command line says.
const (
	exitStatus = `# EXIT STATUS
Commands exit with 0 on success and with 1 on failure. **try** exits with the exit code of the
script. **doctor** exits with 1 if a check is bad. The stages exit with 1 after a build failure and
with 2 after a system failure, or as BUILD_FAILURE_EXIT_CODE and SYSTEM_FAILURE_EXIT_CODE say.
`
	files = `# FILES
**/etc/nspawn-runner.yaml**
: Configuration: nspawn-runner.yaml(5).

**/etc/nspawn-runner/**
: Playbooks of images: nspawn-runner-playbook(5).

**/var/lib/nspawn-runner/**
: Images, machines and caches.

**/usr/share/doc/nspawn-runner/**
: Documentation, and examples of playbooks. Pages such as jobs.md are in its directory docs.
`
)
