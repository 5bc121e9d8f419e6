package debian

// Packages are what an image holds beside a minimal Debian: what takes long to
// install. What a case says about an installation it installs itself.
func Packages(image string) []string {
	common := []string{
		"systemd", "systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd",
		"ca-certificates", "curl", "iproute2", "iputils-ping", "iptables", "netbase", "nftables", "procps", "python3",
		"busybox-static", "docker.io", "docker-compose",
		"podman", "buildah", "skopeo", "aardvark-dns", "catatonit", "crun", "fuse-overlayfs", "netavark", "passt", "slirp4netns", "uidmap",
		"bubblewrap", "lxc", "systemd-container",
		"autopkgtest", "blhc", "debootstrap", "disorderfs", "dpkg-dev", "e2fsprogs", "fakeroot", "faketime", "gnupg", "hello", "lintian", "mmdebstrap", "pbuilder", "piuparts", "reprotest", "sbuild",
		"strace",
	}
	if image != "bookworm" {
		common = append(common, "docker-buildx", "docker-cli")
	}
	return common
}

// Hooks are shell commands that end the making of an image, with its tree as $1. No
// daemon is started at boot: most machines have no use for it.
var Hooks = []string{
	`chroot "$1" systemctl --quiet disable docker.service docker.socket containerd.service lxc.service lxc-net.service podman.service podman.socket podman-auto-update.timer podman-restart.service || true`,
	`chroot "$1" useradd --create-home --shell /bin/bash builder`,
	`rm -f "$1/etc/hostname"`,
}
