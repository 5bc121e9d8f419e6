package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// elsewhere is a host whose state directory is dir, with the image of h.
func (h *host) elsewhere(t *testing.T, dir, backend string) *host {
	t.Helper()
	other := &host{driver: h.driver, config: filepath.Join(t.TempDir(), "config.yaml"), state: dir, playbooks: t.TempDir(), backend: backend}
	must(t, os.MkdirAll(dir, 0o700))
	must(t, os.Symlink(filepath.Join(h.state, "bookworm")+"/", filepath.Join(dir, "bookworm")))
	other.configure(t, "")
	t.Cleanup(func() { other.checkNothingLeft(t) })
	return other
}

// useBackend configures another backend than the host was made with.
func (h *host) useBackend(t *testing.T, name string) {
	t.Helper()
	made := h.backend
	h.backend = name
	h.configure(t, "")
	h.backend = made
}

func TestAStateDirectoryThatCannotHoldAnOverlayNamesABackendThatCan(t *testing.T) {
	h := onHost(t, "overlay")
	dir := t.TempDir()
	shell(t, fmt.Sprintf("mkdir %[1]s/l %[1]s/u %[1]s/w %[1]s/m", dir))
	tmpfs := filepath.Join(dir, "u")
	shell(t, fmt.Sprintf("mount -t tmpfs t %s && mkdir %[1]s/u %[1]s/w && mount -t overlay o -o lowerdir=%[2]s/l,upperdir=%[1]s/u,workdir=%[1]s/w %[2]s/m", tmpfs, dir))
	t.Cleanup(func() { shell(t, fmt.Sprintf("umount %s/m %s", dir, tmpfs)) })
	other := h.elsewhere(t, filepath.Join(dir, "m", "state"), "overlay")
	c := other.drive(t, "prepare", "--id", newID(), "bookworm")
	if c.status != 2 {
		t.Errorf("%+v", c)
	}
	wantLog(t, c.stderr, "cannot hold an overlay", "backend: tmpfs")

	other.useBackend(t, "tmpfs")
	if c := other.run(t, other.prepared(t, "bookworm"), "echo works"); c.stdout != "works\n" {
		t.Errorf("%+v", c)
	}
	other.useBackend(t, "btrfs")
	c = other.drive(t, "prepare", "--id", newID(), "bookworm")
	wantLog(t, c.stderr, "is not a btrfs subvolume: use backend overlay or tmpfs")
}

func TestAFullDiskInPrepareIsTheSystemsFailureAndLeavesNothing(t *testing.T) {
	h := onHost(t, "overlay")
	dir := t.TempDir()
	// Nothing at all fits; then the record does but the machine does not.
	for _, inodes := range []int{3, 6, 8} {
		shell(t, fmt.Sprintf("mount -t tmpfs -o size=64k,nr_inodes=%d small %s", inodes, dir))
		other := &host{driver: h.driver, config: filepath.Join(t.TempDir(), "c.yaml"), state: dir, playbooks: t.TempDir(), backend: "overlay"}
		must(t, os.Symlink(filepath.Join(h.state, "bookworm")+"/", filepath.Join(dir, "bookworm")))
		other.configure(t, "min_free_disk: 0\n")
		c := other.drive(t, "prepare", "--id", newID(), "bookworm")
		if c.status != 2 || !strings.Contains(c.stderr, "no space left on device") {
			t.Errorf("%d inodes: exit %d: %s", inodes, c.status, c.stderr)
		}
		other.checkNothingLeft(t)
		shell(t, "umount "+dir)
	}
}

func TestAChrootOnAnotherFileSystemIsNotSnapshot(t *testing.T) {
	h := onHost(t, "overlay")
	btrfs := install(t, "btrfs")
	other := h.elsewhere(t, filepath.Join(filepath.Dir(h.state), "third"), "overlay")
	other.before = other.leftovers(t)
	t.Cleanup(func() { os.RemoveAll(other.state) })
	must(t, os.Remove(filepath.Join(other.state, "bookworm")), os.Symlink(filepath.Join(btrfs.state, "bookworm")+"/", filepath.Join(other.state, "bookworm")))
	other.useBackend(t, "auto")
	if c := other.run(t, other.prepared(t, "bookworm"), "echo works"); c.stdout != "works\n" {
		t.Errorf("%+v", c)
	}
	other.useBackend(t, "btrfs")
	c := other.drive(t, "prepare", "--id", newID(), "bookworm")
	if c.status != 2 {
		t.Errorf("%+v", c)
	}
	wantLog(t, c.stderr, "lie on different file systems: use backend overlay or tmpfs")
}

// Guides to hardening mount /var so.
func TestJobsAndBuildsWorkWhereTheHostMayNotExecute(t *testing.T) {
	onEach(t, func(t *testing.T, h *host) {
		top := filepath.Dir(h.state)
		if h.backend != "btrfs" { // which has a mount of its own
			shell(t, "mount --bind "+top+" "+top)
			t.Cleanup(func() { shell(t, "umount --lazy "+top) })
		}
		shell(t, "mount -o remount,bind,nosuid,nodev,noexec "+top)
		t.Cleanup(func() { shell(t, "mount -o remount,bind,suid,dev,exec "+top) })
		if c := h.run(t, h.prepared(t, "bookworm"), "install -m 4755 /usr/bin/id /usr/local/bin/setuid-id; su -s /bin/sh nobody -c 'setuid-id -u'"); c.stdout != "0\n" {
			t.Errorf("%+v", c)
		}
		if h.backend == "tmpfs" || os.Getenv("NSPAWN_RUNNER_HOST") != "lab" {
			return
		}
		h.addImage(t, "hardened", "")
		h.book(t, "hardened", "nspawn_runner_test: 'test -e /built'", "- ansible.builtin.command: touch /built")
		h.drives(t, "chroot-maintenance", "hardened")
		wantLog(t, h.drives(t, "chroot-list", "--long").stdout, "maintenance")
	})
}

// Overlays do not lie on overlays, and programs that run containers make some.
func TestWhatAnImageHasForDockerIsThereAndCanHoldOverlays(t *testing.T) {
	onEach(t, func(t *testing.T, h *host) {
		h.addImage(t, "stored", "mkdir -p var/lib/docker/dir srv/containers; cp bin/true var/lib/docker/setuid; chmod 4755 var/lib/docker/setuid; "+
			"chown 33:33 var/lib/docker/dir; rm -rf var/lib/containers; ln -s /srv/containers var/lib/containers; "+
			"ln -s /srv/nowhere var/lib/containerd; mkfifo var/lib/buildkit") // which are as they are
		id := h.prepared(t, "stored")
		c := h.run(t, id, `set -e; umask 022; cd /var/lib/docker; stat -c '%U %a %n' setuid dir
cd /var/lib/containers; mkdir lower upper work merged; echo x > lower/x
mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work,userxattr merged
rm merged/x; ls upper; pwd -P`)
		if c.stdout != "root 4755 setuid\nwww-data 755 dir\nx\n/srv/containers\n" {
			t.Errorf("%+v", c)
		}
		// Whiteouts and what else containers leave there go with the machine.
		h.drives(t, "cleanup", "--id", id)
	})
}
