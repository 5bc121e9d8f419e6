package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nspawn-runner/test/gitlab"
)

// shared is a directory that everybody on the host can enter, for as long as the test.
func shared(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(os.Getenv("NSPAWN_RUNNER_SCRATCH"), "shared-")
	must(t, err, os.Chmod(dir, 0o755))
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// leaveRoot leaves, in a directory of a machine, a program that is setuid and one
// with capabilities of its file. The directory is as open as it can be.
const leaveRoot = `
install -m 4755 /usr/bin/id $DIR/id && chmod 755 $DIR && cp /usr/bin/python3 $DIR/python && python3 - <<'END'
import os, struct
# VFS_CAP_REVISION_2 and "effective"; permitted: CAP_DAC_OVERRIDE, CAP_SETUID
os.setxattr(os.environ["DIR"] + "/python", "security.capability", struct.pack("<5I", 0x02000001, 1 << 1 | 1 << 7, 0, 0, 0))
END`

// letNobodyEnter is a shell command that adds the user nobody to the access control
// list of a directory: acl(5), linux/posix_acl_xattr.h.
const letNobodyEnter = `python3 -c '
import os, struct, sys
entries = (1, 7, -1), (2, 1, 65534), (4, 0, -1), (16, 1, -1), (32, 0, -1)
os.setxattr(sys.argv[1], "system.posix_acl_access", struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *e) for e in entries))'`

// gainsRoot says how an ordinary user of the host becomes root by what leaveRoot left.
func gainsRoot(dir string) string {
	// By a shell, since setpriv still has capabilities when it executes something.
	nobody := func(command string) error {
		return exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", "cd / && "+command, dir).Run()
	}
	switch {
	case nobody(`[ "$("$0/id" -u)" = 0 ]`) == nil:
		return "the setuid program is root's"
	case nobody(`"$0/python" -c "import os; os.setuid(0)"`) == nil:
		return "the program with capabilities becomes root"
	}
	return ""
}

// A program that a job leaves in a writable bind, and that belongs to the host's root,
// must not make root of who can execute it on the host.
func TestAttacksByProgramsInWritableBindsAreHeld(t *testing.T) {
	h := onHost(t, "overlay")
	top := shared(t)
	h.addImage(t, "writer", "")
	h.addImage(t, "reader", "") // whose jobs read all of it, which opens nothing
	h.book(t, "reader", "nspawn_runner_binds: ['"+top+":/srv/all']")
	h.prepared(t, "reader")
	h.book(t, "theirs", "nspawn_runner_binds: ['"+top+"/theirs:/srv/rw:rw']")
	for _, place := range []struct{ name, dir, make string }{
		{"a directory that is open to everybody", "open", "mkdir open"},
		{"a directory that is closed itself, which the job can open", "own", "mkdir -m 700 own"},
		{"a directory whose parent is somebody else's", "users/rw", "mkdir -p users/rw; chmod 700 users; chown 1234 users"},
		{"a directory whose parent a group can enter", "groups/rw", "mkdir -p groups/rw; chmod 710 groups"},
		{"a directory whose parent an access control list opens", "listed/rw", "mkdir -p listed/rw; chmod 700 listed; " + letNobodyEnter + " listed"},
		{"a directory in one that is closed, and that another image's jobs can open", "theirs/rw", "mkdir -p theirs/rw; chmod 700 theirs"},
		{"a directory in one that is closed", "closed/rw", "mkdir -p closed/rw; chmod 700 closed"},
		{"a directory on a mount without setuid", "mount/rw", "mkdir -p mount/rw; mount --bind mount mount; mount -o remount,bind,nosuid mount"},
	} {
		name := "become root by a program in " + place.name
		shell(t, "cd "+top+"; "+place.make)
		dir := filepath.Join(top, place.dir)
		h.book(t, "writer", "nspawn_runner_binds: ['"+dir+":/srv/rw:rw']")
		id := newID()
		refused := h.drive(t, "prepare", "--id", id, "--allow-image=writer", "writer")
		if refused.status == 0 {
			if c := h.run(t, id, "export DIR=/srv/rw; "+leaveRoot); c.status != 0 {
				t.Errorf("%s: the job cannot try: %+v", name, c)
			}
			h.drives(t, "cleanup", "--id", id)
		} else {
			wantLog(t, refused.stderr, "image writer: nspawn_runner_binds: "+dir+": ", "chmod 700")
		}
		if how := gainsRoot(dir); how != "" {
			gotThrough(t, name, how)
		}
		if good := strings.HasPrefix(place.dir, "closed") || strings.HasPrefix(place.dir, "mount"); good != (refused.status == 0) {
			t.Errorf("%s: prepare: %+v", name, refused)
		}
		held(name)
	}
	shell(t, "umount "+top+"/mount; chmod 755 "+top+"/closed")
	for _, dir := range []string{"mount/rw", "closed/rw"} {
		if gainsRoot(filepath.Join(top, dir)) == "" {
			t.Errorf("%s: nobody gains root when it is opened, so this shows nothing", dir)
		}
	}
}

// A directory that a job may write to must not lead another one's bind elsewhere.
func TestAttacksByLinksOnTheWayToABindAreHeld(t *testing.T) {
	h := onHost(t, "overlay")
	top := shared(t)
	shell(t, "cd "+top+"; mkdir -p closed/x/sub/deeper secret/deeper; chmod 700 closed secret; echo file-of-the-host | tee secret/s secret/deeper/s; chmod 755 secret/deeper; chmod 600 secret/s; touch closed/x/one")
	h.addImage(t, "first", "")
	h.addImage(t, "second", "")
	h.book(t, "first", "nspawn_runner_binds: ['"+top+"/closed/x:/srv/rw:rw']")
	second := func(bind string) call {
		t.Helper()
		h.book(t, "second", "nspawn_runner_binds: ['"+top+"/closed/x/"+bind+"']")
		id := newID()
		c := h.drive(t, "prepare", "--id", id, "--allow-image=second", "second")
		if c.status == 0 {
			c = h.run(t, id, "cat /srv/sub/s /srv/one; echo changed >> /srv/sub/s; echo changed >> /srv/one")
			h.drives(t, "cleanup", "--id", id)
		}
		return c
	}
	if c := second("sub:/srv/sub:rw"); !strings.Contains(shell(t, "cat "+top+"/closed/x/sub/s"), "changed") {
		t.Errorf("without an attack: %+v", c)
	}
	id := h.prepared(t, "first")
	for _, what := range []struct{ name, link, bind string }{
		{"lead a writable bind to another directory", "rm -r sub; ln -s " + top + "/secret sub", "sub:/srv/sub:rw"},
		{"lead a read-only bind there", "true", "sub:/srv/sub"},
		{"lead what lies deeper there", "true", "sub/deeper:/srv/sub"},
		{"lead the bind of a file there", "rm one; ln -s ../../secret/s one", "one:/srv/one:rw"},
	} {
		if c := h.run(t, id, "cd /srv/rw && "+what.link); c.status != 0 {
			t.Fatalf("%s: the job cannot try: %+v", what.name, c)
		}
		c := second(what.bind)
		if strings.Contains(c.stdout, "file-of-the-host") || strings.Contains(shell(t, "cat "+top+"/secret/s"), "changed") {
			gotThrough(t, what.name, c.stdout, c.stderr)
		}
		if c.status != 2 {
			t.Errorf("%s: %+v", what.name, c)
		}
		wantLog(t, c.stderr, "is a symbolic link")
		held(what.name)
	}
}

// What lies on the host below a read-only bind is read-only too, and what comes to
// lie there later is not seen.
func TestAttacksOnMountsBelowAReadOnlyBindAreHeld(t *testing.T) {
	h := onHost(t, "overlay")
	top := shared(t)
	shell(t, "cd "+top+"; mkdir early late; mount -t tmpfs -o mode=1777 early early; echo canary > early/file; install -m 4755 /usr/bin/id early/id")
	t.Cleanup(func() { shell(t, "umount "+top+"/early "+top+"/late") })
	h.addImage(t, "reader", "")
	h.book(t, "reader", "nspawn_runner_binds: ['"+top+":/srv/ro']")
	id := h.prepared(t, "reader")
	shell(t, "mount -t tmpfs -o mode=1777 late "+top+"/late; echo canary > "+top+"/late/file")
	if c := h.run(t, id, "cat /srv/ro/early/file"); c.stdout != "canary\n" {
		t.Errorf("what was mounted before: %+v", c)
	}
	for _, what := range []struct{ name, script string }{
		{"write to what was mounted below a read-only bind before", "touch /srv/ro/early/new"},
		{"make that writable", "mount -o remount,rw,bind /srv/ro/early; touch /srv/ro/early/new"},
		{"gain by a setuid program there", "[ $(su -s /bin/sh nobody -c '/srv/ro/early/id -u') != 65534 ]"},
		{"see what is mounted below a read-only bind later", "cat /srv/ro/late/file"},
		{"write to it", "touch /srv/ro/late/new"},
	} {
		wasRefused(t, what.name, h.run(t, id, what.script))
		held(what.name)
	}
}

// Any job may name any image. One that gives jobs more of the host than others must be
// allowed by the runner.
func TestAttacksByNamingAnImageAreHeld(t *testing.T) {
	h := onHost(t, "overlay")
	h.addImage(t, "mighty", "")
	closed := filepath.Join(shared(t), "closed")
	must(t, os.MkdirAll(closed+"/rw", 0o755), os.Chmod(closed, 0o700))
	for _, what := range []struct{ name, vars, says string }{
		{"be root on the host", "nspawn_runner_privileged: true", "image mighty is privileged, and this runner does not allow that"},
		{"use the host's devices", "nspawn_runner_devices: [/dev/loop-control]", "image mighty has devices of the host"},
		{"write to the host's directories", "nspawn_runner_binds: ['" + closed + "/rw:/srv/rw:rw']", "image mighty has writable binds"},
		{"reach the cloud's metadata", "nspawn_runner_cloud_metadata: true", "image mighty reaches the cloud's metadata"},
	} {
		name := what.name + " by naming an image"
		h.book(t, "mighty", what.vars)
		r := h.playOn(t, h.allowing("other", "might", "mighty/*"), gitlab.Job{ID: newNumber(), Image: gitlab.Image{Name: "mighty"}, Script: []string{"echo got in"}})
		if r.Status == gitlab.Success || strings.Contains(r.Log, "got in") {
			gotThrough(t, name, r.Log)
		}
		wantLog(t, r.Log, what.says, `can add "--allow-image=mighty" to prepare_args`)
		if prepares := len(r.Names()); r.Reason != gitlab.ScriptFailure || prepares != 3 {
			t.Errorf("%s: %v, %q: GitLab and gitlab-runner are to try it once", name, r.Reason, r.Names())
		}
		held(name)
	}
	// Whatever the job writes for it, the runner's patterns are of the image's own name.
	h.configure(t, "images: {'debian:12': mighty, 'deb*': mighty}\ndefault_image: mighty\n")
	t.Cleanup(func() { h.configure(t, "") })
	h.book(t, "mighty", "nspawn_runner_privileged: true\nnspawn_runner_aliases: stable")
	for _, written := range []string{"debian:12", "stable", "debian:stable", "deb:1", "nothing", "mighty@sha256:0", ""} {
		name := fmt.Sprintf("be root on the host by writing %q for an image", written)
		c := h.drive(t, "prepare", "--id", newID(), "--allow-image=deb*", "--allow-image="+written, "--allow-image=stable", written)
		if c.status != 1 || !strings.Contains(c.stderr, "image mighty is privileged, and this runner does not allow that") {
			gotThrough(t, name, fmt.Sprintf("%+v", c))
		}
		held(name)
	}
	r := h.playOn(t, h.allowing("other", "might?"), gitlab.Job{ID: newNumber(), Image: gitlab.Image{Name: "debian:12"}, Script: []string{"echo got in"}})
	wantLog(t, r.Log, "got in")
	if c := h.drive(t, "prepare", "--id", newID(), "--allow-image=[", "mighty"); c.status != 2 || !strings.Contains(c.stderr, "--allow-image=[: syntax error in pattern") {
		t.Errorf("a pattern that is none: %+v", c)
	}
	if c := h.drive(t, "try", "mighty", "--", "echo", "root's choice"); c.stdout != "root's choice\n" {
		t.Errorf("%+v", c)
	}
}
