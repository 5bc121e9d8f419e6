package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAnImagesShellExecutesItsScripts(t *testing.T) {
	h := onHost(t, "overlay")
	h.addImage(t, "shelled", "")
	h.book(t, "shelled", "nspawn_runner_shell: /bin/dash")
	id := h.prepared(t, "shelled")
	const which = "readlink /proc/$$/exe"
	if c := h.run(t, id, which); c.stdout != "/usr/bin/dash\n" {
		t.Errorf("%+v", c)
	}
	if c := h.drive(t, "run", "--id", id, "--shell", "/bin/bash", script(t, which)); c.stdout != "/usr/bin/bash\n" {
		t.Errorf("with --shell: %+v", c)
	}
	if c := h.drive(t, "try", "shelled", script(t, which)); c.stdout != "/usr/bin/dash\n" {
		t.Errorf("try: %+v", c)
	}
	h.book(t, "shelled", "nspawn_runner_shell: /bin/zsh")
	if c := h.run(t, id, which); c.stdout != "/usr/bin/dash\n" {
		t.Errorf("a machine that runs has another shell: %+v", c)
	}
	if c := h.drive(t, "try", "shelled", script(t, which)); c.status != 1 || !strings.Contains(c.stderr, "is there a shell /bin/zsh in it?") {
		t.Errorf("a shell that is not there: %+v", c)
	}
}

// The host's /dev/loop-control is 0660: behind a user namespace nobody could
// open it as it is. In the VM this also shows that the device policy lets it pass.
func TestAnImagesDevicesAreThereForEverybodyInItsMachinesInAVMToo(t *testing.T) {
	h := onHost(t, "overlay")
	h.addImage(t, "devices", "")
	const use = "for user in root nobody; do su -s /bin/sh $user -c 'exec 3<>/dev/loop-control && echo opened'; done"
	for _, privileged := range []string{"false", "true"} {
		h.book(t, "devices", "nspawn_runner_privileged: "+privileged+"\nnspawn_runner_devices: [/dev/loop-control]")
		if c := h.run(t, h.prepared(t, "devices"), use); c.stdout != "opened\nopened\n" {
			t.Errorf("privileged %s: %+v", privileged, c)
		}
	}
	if c := h.run(t, h.prepared(t, "bookworm"), "ls /dev/loop-control"); c.status != 1 {
		t.Errorf("another image has it: %+v", c)
	}
	shell(t, "mknod /dev/of-a-test b 7 0")
	t.Cleanup(func() { os.Remove("/dev/of-a-test") })
	for device, want := range map[string]string{
		"/dev/of-a-test": "device /dev/of-a-test: it is a block device",
		"/dev/pts":       "device /dev/pts: it is not a device",
		"/dev/nothing":   "device /dev/nothing: there is no such device on this host",
	} {
		h.book(t, "devices", "nspawn_runner_devices: ["+device+"]")
		c := h.drive(t, "prepare", "--id", newID(), "--allow-image=devices", "devices")
		if c.status != 2 {
			t.Errorf("%s: %+v", device, c)
		}
		wantLog(t, c.stderr, "image devices: nspawn_runner_devices: "+want)
	}
}

func TestAnImagesBindsAreReadOnlyUnlessItSaysSo(t *testing.T) {
	onEach(t, func(t *testing.T, h *host) {
		top := filepath.Join(filepath.Dir(h.config), "binds of "+h.backend)
		must(t, os.MkdirAll(filepath.Join(top, "open"), 0o755), os.MkdirAll(filepath.Join(top, "mine"), 0o700), os.Chmod(top, 0o700),
			os.WriteFile(filepath.Join(top, "open", "file"), []byte("public\n"), 0o644),
			os.WriteFile(filepath.Join(top, "secret"), []byte("secret\n"), 0o600),
			os.WriteFile(filepath.Join(top, "one"), []byte("one\n"), 0o644))
		t.Cleanup(func() { os.RemoveAll(top) })
		h.addImage(t, "bound", "")
		h.book(t, "bound", "nspawn_runner_binds:\n- "+top+"/open:/srv/open\n- "+top+"/mine:/srv/mine:rw\n- "+top+"/one:/srv/one:rw\n- "+top+"/secret:/srv/secret")
		id := h.prepared(t, "bound")
		if c := h.run(t, id, "cat /srv/open/file; echo > /srv/open/new || echo read-only; cat /srv/secret || echo hidden"); c.stdout != "public\nread-only\nhidden\n" {
			t.Errorf("%+v", c)
		}
		c := h.run(t, id, "echo written > /srv/mine/file; echo two >> /srv/one; install -m 4755 /usr/bin/id /srv/mine/id; stat -c %u /srv/mine/file; su -s /bin/sh nobody -c '/srv/mine/id -u'; chmod 755 /srv/mine; su -s /bin/sh nobody -c '/srv/mine/id -u'")
		if c.stdout != "0\n65534\n" {
			t.Errorf("%+v", c)
		}
		if got := shell(t, "cat '"+top+"/mine/file' '"+top+"/one'; stat -c %u '"+top+"/mine/file'"); got != "written\none\ntwo\n0\n" {
			t.Errorf("on the host: %q", got)
		}
		for bind, want := range map[string]string{
			top + "/none:/srv/none": top + "/none: there is no such file or directory on this host",
			top + "/open:/cache":    "/cache is the directory of the jobs' own caches",
		} {
			h.book(t, "bound", "nspawn_runner_binds: ["+bind+"]")
			c := h.drive(t, "prepare", "--id", newID(), "bound")
			if c.status != 2 {
				t.Errorf("%s: %+v", bind, c)
			}
			wantLog(t, c.stderr, "image bound: nspawn_runner_binds: "+want)
		}
	})
}

func TestAStaleImageIsCalledSoAndRunsItsJobs(t *testing.T) {
	h := onHost(t, "overlay")
	h.addImage(t, "aged", "") // of the first of January
	warning := func(image string) string {
		t.Helper()
		c := h.drives(t, "try", image, script(t, "echo works"))
		if c.stdout != "works\n" || strings.Count(c.stderr, "\n") > 1 {
			t.Errorf("%+v", c)
		}
		return c.stderr
	}
	h.book(t, "aged", "nspawn_runner_max_age: 7d")
	if got := warning("aged"); !strings.HasPrefix(got, "warning: image aged was maintained ") || !strings.HasSuffix(got, "d ago (max_age 7d)\n") {
		t.Errorf("%q", got)
	}
	if got := warning("bookworm"); got != "" {
		t.Errorf("an image without a limit: %q", got)
	}
	wantLog(t, h.drives(t, "chroot-list", "--long").stdout, "current, stale")
	wantLog(t, h.drives(t, "chroot-show", "aged").stdout, "current; stale; built ")
}
