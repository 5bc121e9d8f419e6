package integration

import (
	"os/exec"
	"strings"
	"testing"
)

func TestAJobMayRestartItsDBus(t *testing.T) {
	h := onHost(t, "overlay")
	id := h.prepared(t, "bookworm")
	c := h.run(t, id, "systemctl restart dbus; sleep 1; echo went on; exit 4")
	if c.status != 1 || c.code != "4" || c.stdout != "went on\n" {
		t.Errorf("%+v", c)
	}
}

func TestAScriptWhoseBusIsGoneDoesNotReachTheNextSubStage(t *testing.T) {
	h := onHost(t, "overlay")
	id := h.prepared(t, "bookworm")
	c := h.run(t, id, "systemctl kill -s KILL dbus.service; systemctl mask --now dbus.service dbus.socket; rm -rf /run/dbus; sleep 1000")
	if c.status != 2 || !strings.Contains(c.stderr, "its D-Bus went away") {
		t.Errorf("%+v", c)
	}
	await(t, "the machine's end", func() bool {
		return exec.Command("systemctl", "is-active", "nspawn-runner-"+id+".service").Run() != nil
	})
}

func TestABusThatIsNotOneIsTheSystemsFailure(t *testing.T) {
	h := onHost(t, "overlay")
	for name, change := range map[string]string{
		"a link to the host's": "ln -s /proc/1/root/run/dbus/system_bus_socket /run/dbus/system_bus_socket",
		"a link out":           "ln -s ../../../../../../../../run/systemd/private /run/dbus/system_bus_socket",
		"a fifo":               "mkfifo /run/dbus/system_bus_socket",
		"a file":               "touch /run/dbus/system_bus_socket",
		"nothing":              "true",
	} {
		t.Run(name, func(t *testing.T) {
			id := h.prepared(t, "bookworm")
			if c := h.run(t, id, "rm /run/dbus/system_bus_socket && "+change); c.status != 0 {
				t.Fatalf("%+v", c)
			}
			if c := h.run(t, id, "echo executed"); c.status != 2 || c.stdout != "" {
				t.Errorf("%+v", c)
			}
		})
	}
}
