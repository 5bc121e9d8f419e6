package debian

import "slices"

// Packages are what an image holds beside a minimal Debian: what takes long to
// install. What a case says about an installation it installs itself.
func Packages(image string) []string {
	packages := []string{
		"systemd", "systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd",
		"ca-certificates", "curl", "gnupg", "iproute2", "iputils-ping", "netbase", "procps", "python3", "strace",
		"busybox-static", "docker.io", "docker-compose", "iptables",
		"podman", "buildah", "skopeo", "aardvark-dns", "catatonit", "crun", "fuse-overlayfs", "netavark", "nftables", "passt", "slirp4netns", "uidmap",
		"bubblewrap", "lxc", "systemd-container",
		"debootstrap", "dpkg-dev", "e2fsprogs", "fakeroot", "mmdebstrap", "sbuild",
	}
	if image == "bookworm" {
		return packages
	}
	return slices.Concat(packages, []string{
		"docker-buildx", "docker-cli",
		"autopkgtest", "blhc", "disorderfs", "faketime", "gcc", "hello", "libc6-dev", "lintian", "pbuilder", "piuparts", "reprotest", "rsync",
	})
}

// Hooks are shell commands that end the making of an image, with its tree as $1. No
// daemon of theirs is started at boot: most machines have no use for it.
var Hooks = []string{
	`chroot "$1" systemctl --quiet disable docker.service docker.socket containerd.service lxc.service lxc-net.service podman.service podman.socket podman-auto-update.timer podman-restart.service || true`,
	`chroot "$1" useradd --create-home --shell /bin/bash builder`,
	`rm -f "$1/etc/hostname"`,
}
