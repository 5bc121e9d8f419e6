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

// loops are the loop devices whose files lie in a state directory.
func (h *host) loops(t *testing.T) string {
	t.Helper()
	return shell(t, "losetup --noheadings --output BACK-FILE --list | grep "+h.state+"/ || true")
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
		for range 2 {
			id := h.prepared(t, "bookworm")
			if c := h.run(t, id, "head -c 100M /dev/zero > /root/some && rm /root/some"); c.status != 0 || c.stderr != "" {
				t.Errorf("less than it may: %+v", c)
			}
			c := h.run(t, id, fills)
			if c.status != 1 || !strings.Contains(strings.ToLower(c.stderr), refusal) {
				t.Errorf("more than it may: %+v", c)
			}
			wantLog(t, c.stderr, "disk full: the job wrote ", " MiB, the limit of image bookworm is 200 MiB (disk_max)\n")
			if h.backend == "btrfs" {
				// BTRFS_IOC_SUBVOL_CREATE
				c = h.run(t, id, "rm /root/*; python3 -c 'import fcntl, os; fd = os.open(\"/root\", 0); fcntl.ioctl(fd, 0x5000940e, bytearray(8) + bytearray(b\"sub\".ljust(4088, b\"\\0\")), True)' && head -c 300M /dev/zero > /root/sub/too-much")
				if c.status != 1 || !strings.Contains(strings.ToLower(c.stderr), refusal) {
					t.Errorf("in a subvolume of its own: %+v", c)
				}
			}
			if c := h.run(t, id, "rm -r /root/*; echo works > /root/file && cat /root/file"); c.stdout != "works\n" {
				t.Errorf("after room was made: %+v", c)
			}
			h.drives(t, "cleanup", "--id", id)
		}
		if h.backend == "btrfs" {
			groups := shell(t, fmt.Sprintf("ls -d /sys/fs/btrfs/*/qgroups/%d_* | wc -l", 0x6e73))
			if strings.TrimSpace(groups) > "2" {
				t.Errorf("%s quota groups", groups)
			}
		}
	})
}

func TestALayerOfItsOwnHoldsWhatAnOverlayHolds(t *testing.T) {
	h := onHost(t, "overlay")
	h.configure(t, "disk_max: 500M\n")
	t.Cleanup(func() { h.configure(t, "") })
	id := h.prepared(t, "bookworm")
	c := h.run(t, id, strings.Join([]string{
		"set -e; cd /root; cp -a /usr/bin/su su; test -u su; mv /etc/dpkg /etc/dpkg.moved; test ! -e /etc/dpkg",
		"mkdir -m 700 d; touch d/f; chown -R 7:8 d; ln d/f hard; ln -s nowhere link; stat -c '%U %a' d",
		"i=0; while [ $i -lt 20000 ]; do : > d/$i; i=$((i+1)); done; ls d | wc -l; df --output=size -BM / | tail -n 1",
	}, "\n"))
	if c.status != 0 || strings.Join(strings.Fields(c.stdout), " ") != "lp 700 20001 504M" {
		t.Errorf("%+v", c)
	}
	layer := filepath.Join(h.state, ".machines", id, "layer")
	if info, err := os.Stat(layer); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}
