package debian

// What programs find below them.

var system = Group{
	Name:     "system",
	Images:   Images,
	Backends: allBackends,
	Setup:    `echo FROM_THE_IMAGE=yes >>/etc/environment`,
	Cases: []Case{
		{
			Name:   "all units start as the machine boots",
			Script: `test "$(systemctl is-system-running --wait)" = running || { systemctl --failed; exit 1; }`,
		},
		{
			Name:   "variables of /etc/environment reach the job",
			Script: `test "$FROM_THE_IMAGE" = yes`,
		},
		{
			Name: "ulimit -c unlimited, core dumps",
			Note: "depends on the host's kernel.core_pattern: with a file name without a path, core dumps stay in the machine; if a program would keep them on the host, `ulimit -c unlimited` is refused",
			Script: `
pattern=$(cat /proc/sys/kernel/core_pattern)
case $pattern in
	'|'* | @*) refused 'cannot modify limit' bash -c 'ulimit -c unlimited'; exit ;;
esac
ulimit -c unlimited
cd "$(mktemp -d)"
sh -c 'kill -s ABRT $$' || true
case $pattern in
	/*) ;;
	*) ls | grep core ;;
esac
`,
		},
		{
			Name: "memory locked within the limit",
			Script: `
python3 - <<'END'
import ctypes, resource
size = min(resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] % 2**63, 65536) // 2
libc = ctypes.CDLL(None, use_errno=True)
memory = ctypes.create_string_buffer(size)
assert size > 0 and libc.mlock(memory, size) == 0, ctypes.get_errno()
assert libc.munlock(memory, size) == 0
END
`,
		},
		{
			Name: "gpg with secure memory",
			Script: `
export GNUPGHOME=$(mktemp -d)
gpg --batch --passphrase '' --quick-generate-key tester default default never 2>"$GNUPGHOME/said"
if grep -i insecure "$GNUPGHOME/said"; then exit 1; fi
echo text | gpg --batch --clearsign | gpg --verify
gpgconf --kill all
`,
		},
		{
			Name: "rename of a directory that came with the image",
			Script: `
python3 -c 'import os; os.rename("/usr/share/perl5", "/usr/share/renamed"); os.rename("/usr/share/renamed", "/usr/share/perl5")'
`,
		},
		{
			Name: "files opened with O_SYNC and O_DSYNC, fsync, sync",
			Note: "fsync and sync do not wait for the disk; on btrfs, files opened with O_SYNC do",
			Script: `
cd "$(mktemp -d)"
dd if=/dev/zero of=file bs=4k count=4 oflag=sync
dd if=/dev/zero of=file bs=4k count=4 oflag=dsync conv=fsync
sync file; sync -f file; sync
`,
		},
		{
			Name:     "fsync of a descriptor that is not open is an error",
			Note:     "not on btrfs, where fsync(2) always succeeds",
			Backends: []string{"overlay", "tmpfs"},
			Script: `
python3 - <<'END'
import errno, os
for call in os.fsync, os.fdatasync:
    try:
        call(999)
    except OSError as error:
        assert error.errno == errno.EBADF
    else:
        raise SystemExit(call)
END
`,
		},
		{
			Name:   "ping, as an ordinary user",
			Script: `su builder -c 'ping -c 1 -W 5 127.0.0.1'`,
		},
		{
			Name: "strace, and children of other users",
			Script: `
strace -f -o /dev/null su builder -c true
`,
		},
		{
			Name:   "programs of another architecture",
			Kernel: "6.7",
			Script: `
test "$(systemctl show --value -p ConditionResult systemd-binfmt)" = no # Debian's Python alone is no reason
printf '#!/bin/sh\necho interpreted\n' >/srv/interpreter; chmod +x /srv/interpreter
mkdir -p /etc/binfmt.d; echo ':ofatest:E::ofatest::/srv/interpreter:' >/etc/binfmt.d/ofatest.conf
systemctl restart systemd-binfmt
echo >/srv/program.ofatest; chmod +x /srv/program.ofatest
test "$(/srv/program.ofatest)" = interpreted
`,
		},
		{
			Name: "systemctl isolate does not end the job",
			Script: `
systemctl isolate multi-user.target
systemctl --wait is-system-running || true
`,
		},
	},
}

var network = Group{
	Name:     "network",
	Images:   Images,
	Backends: allBackends[:1],
	Setup:    `apt-get -qq update`,
	Cases: []Case{
		{
			Name: "systemd-resolved and systemd-networkd, installed in the job",
			Script: `
apt-get -qq install --no-install-recommends systemd-resolved >/dev/null
systemctl enable --now systemd-networkd
getent hosts deb.debian.org
curl --silent --show-error --fail --output /dev/null http://deb.debian.org/debian/dists/$suite/Release
# On any Debian, dbus learns of its user too late for it to have its name.
systemctl restart systemd-resolved systemd-networkd
resolvectl query deb.debian.org
curl --silent --show-error --fail --output /dev/null http://deb.debian.org/debian/dists/$suite/Release
`,
		},
		{
			Name: "a firewall, a bridge, a tunnel device",
			Script: `
iptables --append INPUT --protocol tcp --dport 9 --jump REJECT
ip link add bridge type bridge; ip link set bridge up
ip tuntap add tap0 mode tap; ip link set tap0 master bridge
`,
		},
	},
}
