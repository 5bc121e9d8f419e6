package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// quotas turns the quotas of the btrfs of a directory on, simple ones, or off:
// bookworm's btrfs-progs do not know those.
func quotas(t *testing.T, path string, on bool) {
	t.Helper()
	dir, err := os.Open(path)
	must(t, err)
	defer dir.Close()
	// BTRFS_IOC_QUOTA_CTL of linux/btrfs.h, with BTRFS_QUOTA_CTL_ENABLE_SIMPLE_QUOTA
	// or BTRFS_QUOTA_CTL_DISABLE.
	args := struct{ command, status uint64 }{command: 2}
	if on {
		args.command = 4
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), 0xc0109428, uintptr(unsafe.Pointer(&args))); errno != 0 {
		t.Fatalf("quotas of %s, %v: %v", path, on, errno)
	}
}

// loops are the files of loop devices that lie in a state directory, a line each. Labs share the
// devices, and have the same paths: a file that is not here is another lab's.
func (h *host) loops(t *testing.T) string {
	t.Helper()
	var all string
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	must(t, err)
	for _, file := range files {
		backing, err := os.ReadFile(file)
		path := strings.TrimSpace(string(backing))
		if err == nil && strings.HasPrefix(path, h.state+"/") && (exists(path) || strings.HasSuffix(path, " (deleted)")) { // else it is detached now
			all += string(backing)
		}
	}
	return all
}

// fills writes more than its machine may, keeps that, and fails.
const fills = "head -c 60M /dev/zero > /root/some && head -c 300M /dev/zero > /root/too-much"

func TestAJobWritesNoMoreThanItMayInAVMToo(t *testing.T) {
	onEach(t, func(t *testing.T, h *host) {
		h.configure(t, "disk_max: 200M\n")
		t.Cleanup(func() { h.configure(t, "") })
		refusal := "no space left on device"
		if h.backend == "btrfs" {
			refusal = "quota exceeded"
			c := h.drive(t, "prepare", "--id", newID(), "bookworm")
			if c.status != 2 {
				t.Errorf("without quotas: %+v", c)
			}
			wantLog(t, c.stderr, "image bookworm: disk_max on backend btrfs: the btrfs of "+h.state, "has no simple quotas", "btrfs quota enable --simple", "backend: overlay")
			if os.Getenv("NSPAWN_RUNNER_HOST") == "vm" {
				return // bookworm's kernel has none
			}
			quotas(t, h.state, true)
			t.Cleanup(func() { quotas(t, h.state, false) })
		}
		for range 3 {
			id := h.prepared(t, "bookworm")
			if c := h.run(t, id, "head -c 100M /dev/zero > /root/some && rm /root/some"); c.status != 0 || c.stderr != "" {
				t.Errorf("less than it may: %+v", c)
			}
			c := h.run(t, id, fills)
			if c.status != 1 || !strings.Contains(strings.ToLower(c.stderr), refusal) {
				t.Errorf("more than it may: %+v", c)
			}
			wantLog(t, c.stderr, "disk full: the job wrote as much as image bookworm allows: 200 MiB (disk_max)\n")
			if h.backend == "btrfs" {
				h.fillsSubvolumes(t, id)
			}
			if c := h.run(t, id, "rm -r /root/*; echo works > /root/file && cat /root/file"); c.stdout != "works\n" {
				t.Errorf("after room was made: %+v", c)
			}
			h.drives(t, "cleanup", "--id", id)
		}
		if h.backend == "btrfs" {
			// The kernel forgets a subvolume when it has given back its space.
			shell(t, "btrfs filesystem sync "+h.state+" && btrfs subvolume sync "+h.state)
			h.drives(t, "cleanup", "--id", h.prepared(t, "bookworm"))
			if groups := strings.Fields(shell(t, fmt.Sprintf("cd /sys/fs/btrfs && ls -d */qgroups/%d_*", 0x6e73))); len(groups) != 1 {
				t.Errorf("quota groups: %q", groups)
			}
		}
	})
}

// fillsSubvolumes has a job write too much into subvolumes of its own: one that is in
// the groups of its machine's, and one that is said to be in none.
func (h *host) fillsSubvolumes(t *testing.T, id string) {
	t.Helper()
	c := h.run(t, id, "rm /root/*; python3 -c '"+subvolume+"sub(\"/root/sub\")' && head -c 300M /dev/zero > /root/sub/too-much")
	if c.status != 1 || !strings.Contains(strings.ToLower(c.stderr), "quota exceeded") {
		t.Errorf("in a subvolume of its own: %+v", c)
	}
	c = h.run(t, id, `rm /root/sub/*; python3 -c '
import ctypes, fcntl, os, struct
inherit = (ctypes.c_uint64 * 9)() # struct btrfs_qgroup_inherit, of no group
args = struct.pack("qQQQQQQ4040s", 0, 0, 4, 72, ctypes.addressof(inherit), 0, 0, b"free") # BTRFS_SUBVOL_QGROUP_INHERIT
fcntl.ioctl(os.open("/root", 0), 0x50009418, bytearray(args), True) # BTRFS_IOC_SUBVOL_CREATE_V2
' && head -c 300M /dev/zero > /root/free/too-much`)
	if c.status != 1 || !strings.Contains(c.stderr, "Operation not permitted") {
		t.Errorf("in a subvolume that is in no group: %+v", c)
	}
}

func TestALayerOfItsOwnHoldsWhatAnOverlayHolds(t *testing.T) {
	h := onHost(t, "overlay")
	h.configure(t, "disk_max: 500M\n")
	t.Cleanup(func() { h.configure(t, "") })
	id := h.prepared(t, "bookworm")
	c := h.run(t, id, strings.Join([]string{
		"set -e; cd /root; cp -a /usr/bin/su su; test -u su; mv /etc/dpkg /etc/dpkg.moved; test ! -e /etc/dpkg",
		"mkdir -m 700 d; touch d/f; chown -R 7:8 d; ln d/f hard; ln -s nowhere link; stat -c '%U %a' d",
		"i=0; while [ $i -lt 20000 ]; do : > d/$i; i=$((i+1)); done; ls d | wc -l; test $(df --output=avail -BM / | tail -n 1 | tr -d M) -ge 490",
	}, "\n"))
	if c.status != 0 || strings.Join(strings.Fields(c.stdout), " ") != "lp 700 20001" {
		t.Errorf("%+v", c)
	}
	layer := filepath.Join(h.state, ".machines", id, "layer")
	if info, err := os.Stat(layer); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	h.configure(t, "disk_max: 64M\n")
	c = h.run(t, h.prepared(t, "bookworm"), "mkdir /root/d; cd /root/d; i=0; while [ $i -lt 20000 ]; do : > $i || exit 1; i=$((i+1)); done")
	wantLog(t, c.stderr, "disk full: the job wrote as many files as image bookworm allows: one for each 8 KiB of 64 MiB (disk_max)\n")

	// What a machine may write is there for it, or it does not start.
	h.configure(t, "disk_max: 100%\n")
	if c := h.drive(t, "prepare", "--id", newID(), "bookworm"); c.status != 2 || !strings.Contains(c.stderr, " MiB are free in "+h.state+"; the machines of the job need ") {
		t.Errorf("%+v", c)
	}
}
