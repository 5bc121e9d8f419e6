package debian

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the tables to docs/debian.md")

const (
	page = "../../docs/debian.md"
	// mark ends what is written by hand.
	mark = "<!-- go test ./test/debian -update writes what follows -->\n"
)

func TestThePageHasTheTablesOfTheListThatIsRun(t *testing.T) {
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	head, tables, found := strings.Cut(string(data), mark)
	if !found {
		t.Fatalf("%s: there is no line %q", page, mark)
	}
	var want bytes.Buffer
	WriteTable(&want)
	switch {
	case *update:
		if err := os.WriteFile(page, []byte(head+mark+want.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	case tables != want.String():
		t.Errorf("%s differs from the list; go test ./test/debian -update writes it", page)
	}
}

func TestEachCaseHasANameOfItsOwnAndAScriptThatBashReads(t *testing.T) {
	names := map[string]bool{}
	for _, group := range Groups {
		if titles[group.Name] == "" {
			t.Errorf("group %s has no title", group.Name)
		}
		for _, c := range append(group.Cases, Case{Name: group.Name, Script: group.Setup}) {
			if names[c.Name] || strings.ContainsAny(c.Name, "|\n") {
				t.Errorf("%q is not a line of a table and a test", c.Name)
			}
			names[c.Name] = true
			cmd := exec.Command("bash", "-n")
			cmd.Stdin = strings.NewReader(Prelude + c.Script)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %s", c.Name, err, out)
			}
		}
	}
}
