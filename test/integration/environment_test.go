package integration

import (
	"os"
	"strings"
	"testing"
)

func TestVariablesOfTheImageReachItsJobs(t *testing.T) {
	h := onHost(t, "overlay")
	h.addImage(t, "varied", `rm -f etc/environment && printf 'export FROM_FILE="of the file"\nBOTH=file\nHOME=/srv\nnonsense\n' > etc/environment`)
	h.book(t, "varied", "nspawn_runner_environment:\n  BOTH: image\n  FROM_IMAGE: $(of the image) \"'\n  NUMBER: 08\n")
	id := h.prepared(t, "varied")
	h.book(t, "varied", "nspawn_runner_environment: {BOTH: of a playbook that changed, NEW: 1}")

	const show = `echo "$FROM_FILE|$BOTH|$FROM_IMAGE|$NUMBER|$NEW|$HOME|$PATH"; `
	const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
	if c := h.run(t, id, "BOTH=job; "+show); c.stdout != `of the file|job|$(of the image) "'|08||/srv|`+path {
		t.Errorf("%q %q", c.stdout, c.stderr)
	}
	if c := h.run(t, id, "echo BOTH=new FROM_FILE=new | tr ' ' '\\n' > /etc/environment; "+show); !strings.HasPrefix(c.stdout, "of the file|image|") {
		t.Errorf("%q %q", c.stdout, c.stderr)
	}
	if c := h.run(t, id, show+"rm /etc/environment; mkfifo /etc/environment"); c.stdout != `new|image|$(of the image) "'|08||/root|`+path {
		t.Errorf("after a script that changed the file: %q %q", c.stdout, c.stderr)
	}
	if c := h.run(t, id, show+"systemctl is-active dbus.socket"); c.stdout != `|image|$(of the image) "'|08||/root|`+path+"active\n" {
		t.Errorf("after one that put a fifo there: %q %q", c.stdout, c.stderr)
	}
}

func TestAJobMayIsolateATarget(t *testing.T) {
	h := onHost(t, "overlay")
	// Not rescue.target, which takes the machine's D-Bus with it.
	c := h.run(t, h.prepared(t, "bookworm"), "systemd-run -q --unit=other sleep 1000; systemctl isolate multi-user.target && systemctl is-active multi-user.target other; echo goes on")
	if c.stdout != "active\ninactive\ngoes on\n" {
		t.Errorf("exit %d, %q %q", c.status, c.stdout, c.stderr)
	}
}

func TestACoreDumpIsTheJobsToHave(t *testing.T) {
	h := onHost(t, "overlay")
	pattern, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	must(t, err)
	if strings.ContainsAny(string(pattern), "|@/%") {
		t.Skipf("kernel.core_pattern is %q, so this host has no core dumps, or of other names", pattern)
	}
	before := shell(t, "ls -d /core* /tmp/core* /root/core* 2>/dev/null; true")
	c := h.run(t, h.prepared(t, "bookworm"), `set -e
ulimit -c
mkdir /srv/dump && cd /srv/dump
sh -c 'kill -SEGV $$' || ls | wc -l
ulimit -c unlimited
sh -c 'kill -SEGV $$' || head -c 4 core* | tail -c 3`)
	if c.status != 0 || !strings.HasPrefix(c.stdout, "0\n0\nELF") {
		t.Errorf("exit %d, %q %q", c.status, c.stdout, c.stderr)
	}
	if after := shell(t, "ls -d /core* /tmp/core* /root/core* 2>/dev/null; true"); after != before {
		t.Errorf("on the host: %s", after)
	}
}
