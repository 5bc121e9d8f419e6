package ansible

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"nspawn-runner/runner/printable"
)

// Tally is what the callback counted: tasks, on all hosts together.
type Tally struct {
	OK, Changed, Ignored int
	// Tasks are the names of some of those that changed something, and of some that failed
	// and were ignored.
	Tasks struct{ Changed, Ignored []string }
	Known bool `json:"-"` // the callback counted
}

// readTally reads the callback's file. Without one nothing is known.
func readTally(path string) Tally {
	text, err := os.ReadFile(path)
	if err != nil {
		return Tally{}
	}
	var t Tally
	t.Known = json.Unmarshal(text, &t) == nil
	return t
}

// Changes words why a tree may have been changed by the tasks, else it is empty.
func (t Tally) Changes() string {
	switch {
	case !t.Known:
		return "ansible did not say what it changed"
	case t.Changed > 0:
		return fmt.Sprintf("ansible changed something in %d of %d tasks%s", t.Changed, t.OK, named(t.Tasks.Changed, t.Changed))
	case t.Ignored > 0:
		return fmt.Sprintf("%d tasks failed, were ignored, and may have changed something%s", t.Ignored, named(t.Tasks.Ignored, t.Ignored))
	}
	return ""
}

// named names some of a number of tasks.
func named(names []string, number int) string {
	if len(names) == 0 {
		return ""
	}
	words := ": " + strings.Join(names, ", ")
	if number > len(names) {
		words += ", ..."
	}
	return printable.Line(words)
}
