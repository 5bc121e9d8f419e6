package installed

import (
	"strings"
	"testing"
)

func refusesRemoval(t *testing.T, h host) {
	h.bash(t, `nspawn-runner prepare --id 75 base`)
	for _, command := range []string{"remove", "purge"} {
		out, err := h.try(t, "apt-get "+command+" -qq -y nspawn-runner")
		if err == nil {
			t.Fatalf("apt-get %s: %s", command, out)
		}
		want(t, out, "nspawn-runner: machines are running: nspawn-runner-75")
	}
	out := h.bash(t, `
dpkg-query --show --showformat='${db:Status-Status}\n' nspawn-runner
systemctl is-active nspawn-runner-maintenance.timer
echo 'echo works' >/root/script
nspawn-runner run --id 75 /root/script
nspawn-runner cleanup --id 75
`)
	want(t, out, "installed\nactive\n", "\nworks\n")
}

func removes(t *testing.T, h host) {
	out := h.bash(t, `
quietly apt-get remove -qq -y nspawn-runner
systemctl list-units --plain --no-legend --state=active,activating,failed 'nspawn-runner*'
ls /var/lib/nspawn-runner /etc/nspawn-runner.yaml /etc/nspawn-runner/small.yaml
! command -v nspawn-runner
quietly apt-get install -qq -y $deb
nspawn-runner try base -- echo again
systemctl is-active nspawn-runner-maintenance.timer
`)
	want(t, out, "base\nsmall\n", "\nagain\n", "\nactive\n")
	if strings.Contains(out, "nspawn-runner-maintenance") {
		t.Errorf("units stay: %s", out)
	}
}

func purges(t *testing.T, h host) {
	// A machine whose unit is there is one that another program of the same directory runs.
	out, err := h.try(t, `
quietly apt-get remove -qq -y nspawn-runner
systemd-run --quiet --unit=nspawn-runner-76.service sleep infinity
apt-get purge -qq -y nspawn-runner`)
	if err == nil {
		t.Fatalf("a purge beside a machine: %s", out)
	}
	want(t, out, "machine nspawn-runner-76 is running")
	h.bash(t, `
systemctl stop nspawn-runner-76.service
[ -e /var/lib/nspawn-runner/base/etc ]
mkdir /var/lib/nspawn-runner/m && mount --bind /opt /var/lib/nspawn-runner/m`)
	if out, err = h.try(t, "apt-get purge -qq -y nspawn-runner"); err == nil {
		t.Fatalf("a purge beside a mount: %s", out)
	}
	want(t, out, "something is mounted there: /var/lib/nspawn-runner/m")
	h.bash(t, "umount /var/lib/nspawn-runner/m; cp /var/lib/dpkg/info/nspawn-runner.postrm /root/postrm")
	diesInPurge(t, h)
	out = h.bash(t, `
touch /var/lib/nspawn-runner/small/immutable && chattr +i /var/lib/nspawn-runner/small/immutable
btrfs -q subvolume snapshot -r /var/lib/nspawn-runner/base/ /var/lib/nspawn-runner/base/var/fixed
mkdir -p /var/lib/nspawn-runner/.cache/project
until ! fallocate -l 64M /var/lib/nspawn-runner/$((n = ${n-0} + 1)) 2>/dev/null; do :; done # the disk is full
apt-get purge -qq -y nspawn-runner
ls -A /var/lib/nspawn-runner
btrfs subvolume list /var/lib/nspawn-runner
ls -d /etc/nspawn-runner* /etc/needrestart/conf.d/nspawn-runner.conf 2>/dev/null || true
dpkg-query --show --showformat='${db:Status-Abbrev}\n' nspawn-runner 2>&1 || true
umount /var/lib/nspawn-runner
`)
	if strings.Contains(out, "\nID ") || !strings.Contains(out, "no packages found") && !strings.Contains(out, "\nun ") {
		t.Errorf("after the purge: %s", out)
	}
	purgesThroughLink(t, h)
	want(t, out, "/etc/nspawn-runner\n") // with the playbook of the administrator
	if strings.Contains(out, "/etc/nspawn-runner.yaml") || strings.Contains(out, "needrestart") {
		t.Errorf("after the purge: %s", out)
	}
}

// diesInPurge has a purge die when it has removed a tree, as by kill -9.
func diesInPurge(t *testing.T, h host) {
	out := h.bash(t, `
cat >/usr/local/sbin/rm <<-'END'
	#!/bin/sh
	case "$*" in */var/lib/nspawn-runner/*) ;; *) exec /bin/rm "$@" ;; esac
	/bin/rm -rf /var/lib/nspawn-runner/.generations/base/20260101T000000Z
	kill -9 $(ps -o ppid= -p $PPID) $PPID # find, and the script that called it
END
chmod +x /usr/local/sbin/rm
dpkg --purge nspawn-runner 2>&1 && s=0 || s=$?
/bin/rm /usr/local/sbin/rm
echo "dpkg ended with $s"
dpkg-query --show --showformat='${db:Status-Status}\n' nspawn-runner
ls /var/lib/nspawn-runner/.generations/base
`)
	want(t, out, "was killed by signal", "dpkg ended with 1\n", "config-files\n20260201T000000Z\n")
}

// purgesThroughLink purges a state directory that the administrator has elsewhere.
func purgesThroughLink(t *testing.T, h host) {
	h.bash(t, `
mkdir -p /lab/elsewhere/base /lab/elsewhere/.cache && rmdir /var/lib/nspawn-runner && ln -s /lab/elsewhere /var/lib/nspawn-runner
sh /root/postrm purge
[ ! -e /lab/elsewhere ] && [ ! -h /var/lib/nspawn-runner ]
mkdir /var/lib/nspawn-runner`)
}

// takesOver installs the package over what `mage install` puts in place, beside a chroot as
// the Python tool made it. The administrator has a configuration.
func takesOver(t *testing.T, h host) {
	h.bash(t, `
mkdir -p /lab/python /var/lib/nspawn-runner
mount --bind /lab/python /var/lib/nspawn-runner && chmod 755 /var/lib/nspawn-runner
cp -a /opt/base /var/lib/nspawn-runner/plain
printf -- '- hosts: all\n  tasks: []\n' >/var/lib/nspawn-runner/plain.yaml
rm -f /etc/nspawn-runner/small.yaml
dpkg-deb -x $deb /root/local
install -D -t /usr/local/bin /root/local/usr/bin/nspawn-runner
mkdir -p /usr/local/lib/systemd/system
for unit in /root/local/usr/lib/systemd/system/*; do
	sed 's|/usr/bin|/usr/local/bin|' $unit >/usr/local/lib/systemd/system/${unit##*/}
done
systemctl daemon-reload && systemctl enable -q --now nspawn-runner-maintenance.timer
echo 'usage: false' >/etc/nspawn-runner.yaml
nspawn-runner prepare --id 81 plain
`)
	out := h.bash(t, `apt-get install -qq -y -o Dpkg::Options::=--force-confold $deb 2>&1`)
	want(t, out, "/usr/local/bin/nspawn-runner hides the program of this package.")
	out = strings.ReplaceAll(out, "\r", "") // apt shows it at a terminal of its own
	remove := strings.TrimSpace(out[strings.Index(out, "  rm -f /usr/local"):])
	remove, _, _ = strings.Cut(remove, "daemon-reload")
	out = h.bash(t, remove+`daemon-reload
hash -r
command -v nspawn-runner
cat /etc/nspawn-runner.yaml
stat -c %a /var/lib/nspawn-runner
systemctl is-active nspawn-runner-maintenance.timer
systemctl cat nspawn-runner-maintenance.service | grep ^ExecStart
echo 'echo works' >/root/script
nspawn-runner run --id 81 /root/script
nspawn-runner cleanup --id 81
nspawn-runner chroot-maintenance plain
nspawn-runner try plain -- echo maintained
`)
	want(t, out, "/usr/bin/nspawn-runner\n", "usage: false\n", "\n700\n", "\nactive\n",
		"ExecStart=/usr/bin/nspawn-runner ", "\nworks\n", "\nmaintained\n")
	h.bash(t, "quietly apt-get purge -qq -y nspawn-runner && ! [ -e /var/lib/nspawn-runner/plain ]")
}
