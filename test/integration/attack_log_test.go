package integration

import (
	"encoding/json"
	"slices"
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
	// priorities are those of the entries that contain a text, in journald's JSON.
	priorities := func(entries, text string) (all []string) {
		for line := range strings.Lines(entries) {
			var entry struct{ Priority, Message string }
			must(t, json.Unmarshal([]byte(line), &entry))
			if strings.Contains(entry.Message, text) {
				all = append(all, entry.Priority)
			}
		}
		return all
	}
	if got := priorities(journal("--output=json"), "an emergency"); !slices.Equal(got, []string{"6"}) {
		gotThrough(t, name, got)
	}
	shell(t, "echo '<0>the control of "+id+"' | systemd-cat --identifier=control-"+id)
	control := shell(t, "journalctl --sync; journalctl --quiet --output=json --identifier=control-"+id)
	if got := priorities(control, "the control"); !slices.Equal(got, []string{"0"}) {
		t.Errorf("%s: the host cannot call one either, so this shows nothing: %s", name, control)
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

// A machine's first process is its systemd only as long as the job wants that, and
// systemd-nspawn passes on what it says of itself.
func TestAttacksOnWhoAsksSystemctlAreHeld(t *testing.T) {
	h := onHost(t, "overlay")
	id := h.prepared(t, "bookworm")
	name := "write control characters to who asks systemctl"
	c := h.run(t, id, `cat > /init <<'END'
#!/usr/bin/python3
import socket, time
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"STATUS=\x1b[31mevil", "/run/host/notify")
open("/dev/console", "w").write("the status is sent\n")
time.sleep(10000)
END
chmod 755 /init; mv /init /usr/lib/systemd/systemd; systemd-run -q bash -c 'sleep 0.2; systemctl daemon-reexec'`)
	if c.status != 0 {
		t.Fatalf("%s: the machine could not try: %+v", name, c)
	}
	await(t, "the status to be sent", func() bool {
		return strings.Contains(shell(t, "journalctl --sync; journalctl --quiet --unit=nspawn-runner-"+id+".service"), "the status is sent")
	})
	if status := shell(t, "systemctl status nspawn-runner-"+id+".service"); strings.Contains(status, "evil") || hasControls(status) {
		gotThrough(t, name, status)
	}
	held(name)
}
