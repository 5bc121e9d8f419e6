package integration

import (
	"encoding/json"
	"strings"
	"testing"
)

// What a job writes to its console comes to the host's journal, as what its
// machine's service says.
func TestAttacksOnTheHostsLogAreHeld(t *testing.T) {
	h := onHost(t, "overlay")
	id := h.prepared(t, "bookworm")
	journal := func(options string) string {
		return shell(t, "journalctl --sync; journalctl --quiet --no-pager "+options+" --unit=nspawn-runner-"+id+".service")
	}

	// journald shows what is that urgent at every terminal: ForwardToWall= of
	// journald.conf(5).
	name := "call an emergency"
	c := h.run(t, id, "echo '<0>an emergency' > /dev/console")
	if c.status != 0 {
		t.Fatalf("%s: the machine could not try: %+v", name, c)
	}
	await(t, "the console's line in the journal", func() bool { return strings.Contains(journal(""), "an emergency") })
	for line := range strings.Lines(journal("--output=json --grep=emergency")) {
		var entry struct{ Priority string }
		must(t, json.Unmarshal([]byte(line), &entry))
		if entry.Priority != "6" {
			gotThrough(t, name, line)
		}
	}
	held(name)

	name = "flood the host's journal"
	before := len(journal(""))
	c = h.run(t, id, `python3 -c '
line = b"x" * 1000 + b"\n"
with open("/dev/console", "wb", 0) as console:
    for n in range(20000): console.write(line)
' && echo done > /dev/console`)
	if c.status != 0 {
		t.Fatalf("%s: the machine could not try: %+v", name, c)
	}
	if grown := len(journal("")) - before; grown > 1<<20 {
		gotThrough(t, name, grown)
	}
	held(name)
}
