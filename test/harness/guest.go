package harness

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// GuestTree is the host that a VM boots: what a lab has, with a kernel and a
// network. Its service runs what the VM is given as a payload.
var GuestTree = Recipe{
	Kind:  "guest",
	Suite: "bookworm",
	Packages: slices.Concat(LabTree.Packages, []string{
		"linux-image-cloud-amd64", "initramfs-tools", "kmod", "zstd",
		// A kernel of Debian's recommends it, so hosts have it.
		"apparmor",
	}),
	Before: []string{
		// An initramfs for QEMU's devices only takes a tenth of the time.
		`mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d"`,
		`echo MODULES=list >"$1/etc/initramfs-tools/conf.d/harness"`,
		`printf '%s\n' virtio_pci virtio_blk virtio_console virtio_net ext4 >"$1/usr/share/initramfs-tools/modules.d/harness"`,
	},
	Hooks: []string{
		`chroot "$1" systemctl mask getty.target serial-getty@ttyS0.service e2scrub_all.timer e2scrub_reap.service \
			apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer \
			modprobe@drm.service modprobe@efi_pstore.service systemd-pstore.service systemd-binfmt.service`,
		`echo vm >"$1/etc/hostname"`,
		`printf '127.0.0.1 localhost vm\n::1 localhost\n' >"$1/etc/hosts"`,
		`echo nameserver 10.0.2.3 >"$1/etc/resolv.conf"`,
		`cat >"$1/etc/systemd/system/harness.service" <<'END'` + guestService + `END`,
		`chroot "$1" systemctl enable harness.service`,
		// Each boot would otherwise be taken for the first one, which is slower.
		`chroot "$1" systemd-machine-id-setup`,
		`touch "$1/etc/.updated" "$1/var/.updated"`,
	},
}

// guestService sets up the network, with the addresses that QEMU gives it,
// unpacks the payload and runs it. The payload may wait for the system to be
// up, so it is no part of that.
const guestService = `
[Unit]
Description=Payload of the harness
After=basic.target dbus.service

[Service]
Type=exec
Environment=HOME=/root LANG=C.UTF-8 TERM=dumb
TasksMax=infinity
OOMPolicy=continue
ExecStartPre=udevadm wait --timeout=60 /dev/disk/by-id/virtio-payload /dev/virtio-ports/out /dev/virtio-ports/status /sys/class/net/eth0
ExecStartPre=ip link set eth0 up
ExecStartPre=ip address add 10.0.2.15/24 dev eth0
ExecStartPre=ip route add default via 10.0.2.2
ExecStartPre=tar -C / -xf /dev/disk/by-id/virtio-payload
ExecStart=/bin/sh ` + payloadScript + `

[Install]
WantedBy=multi-user.target
`

// Guest is the directory of the bootable image that a recipe makes, as Tree is of a
// tree: root.img, vmlinuz, initrd.img.
func Guest(ctx context.Context, out io.Writer, r Recipe) (string, error) {
	return cached(ctx, r.Kind, r.hash(), func(aside string) error {
		fmt.Fprintf(out, "Building the %s image (%s), a minute or two\n", r.Kind, r.Suite)
		tree := filepath.Join(aside, "tree")
		if err := os.Mkdir(tree, 0o755); err != nil {
			return err
		}
		if err := r.build(ctx, tree); err != nil {
			return err
		}
		for _, name := range []string{"vmlinuz", "initrd.img"} {
			// The links in the root directory name the newest ones.
			link, err := os.Readlink(filepath.Join(tree, name))
			if err != nil {
				return err
			}
			if err := os.Rename(filepath.Join(tree, link), filepath.Join(aside, name)); err != nil {
				return err
			}
		}
		root := Disk{Path: filepath.Join(aside, "root.img"), Label: "root", FS: "ext4", Size: 16 << 30, From: tree}
		if err := root.create(ctx); err != nil {
			return err
		}
		return os.RemoveAll(tree)
	})
}

// started reports whether a kernel has begun to write to a console.
func started(console string) bool {
	content, _ := os.ReadFile(console)
	return bytes.Contains(content, []byte("Linux version"))
}
