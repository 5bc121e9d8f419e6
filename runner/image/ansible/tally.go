package ansible

import (
	"encoding/json"
	"fmt"
	"os"
)

// Tally is what the callback counted: tasks, on all hosts together.
type Tally struct {
	OK, Changed, Ignored int
	Known                bool `json:"-"` // the callback counted
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
		return fmt.Sprintf("ansible changed something in %d of %d tasks", t.Changed, t.OK)
	case t.Ignored > 0:
		return fmt.Sprintf("%d tasks failed, were ignored, and may have changed something", t.Ignored)
	}
	return ""
}
