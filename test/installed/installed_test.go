package installed

import (
	"strings"
	"testing"
)

// TestThePackageFromItsInstallationToItsPurge goes through the life of a package on one
// host. Each step needs those before it.
func TestThePackageFromItsInstallationToItsPurge(t *testing.T) {
	h := boot(t)
	step := func(name string, do func(*testing.T, host)) {
		if !t.Failed() {
			t.Run(name, func(t *testing.T) { do(t, h) })
		}
	}
	step("apt installs it on a minimal Debian, and only its timers start", installs)
	step("the steps of the README lead to a job", fiveMinutes)
	step("bash, zsh and fish complete images, machines and generations", shells)
	step("jobs go on while it is upgraded", upgrades)
	step("jobs go on while needrestart restarts services", restarts)
	step("jobs go on while unattended-upgrades upgrades it", unattended)
	step("it is not removed while a machine runs", refusesRemoval)
	step("a removal keeps the images, and a second installation has them", removes)
	step("a purge removes all there is, and subvolumes", purges)
	step("it takes over from an installation in /usr/local, and images of the Python tool", takesOver)
}

func installs(t *testing.T, h host) {
	h.bash(t, repack)
	h.bash(t, `quietly apt-get update -qq && cd /root && quietly apt-get install -qq -y $deb
/var/lib/dpkg/info/nspawn-runner.postinst configure $version # as after a failure`)
	got := h.bash(t, `
stat -c '%a %U %n' /var/lib/nspawn-runner /etc/nspawn-runner /etc/nspawn-runner.yaml /usr/bin/nspawn-runner
systemctl is-enabled nspawn-runner-maintenance.timer nspawn-runner-metrics.timer
systemctl list-units --plain --no-legend --state=active,activating 'nspawn-runner*' | awk '{print $1}'
realpath $(systemctl show -P FragmentPath nspawn-runner-maintenance.service)
systemctl cat nspawn-runner-maintenance.service | grep ^ExecStart
find /var/lib/nspawn-runner /etc/nspawn-runner -mindepth 1
dpkg-query --show --showformat='${Conffiles}\n' nspawn-runner | awk 'NF {print $1}'
systemctl start nspawn-runner-metrics.service && journalctl --quiet --unit=nspawn-runner-metrics.service
nspawn-runner version | grep -o "package $version"
nspawn-runner chroot-list
`)
	const expected = `700 root /var/lib/nspawn-runner
755 root /etc/nspawn-runner
644 root /etc/nspawn-runner.yaml
755 root /usr/bin/nspawn-runner
enabled
enabled
nspawn-runner-maintenance.timer
nspawn-runner-metrics.timer
/usr/lib/systemd/system/nspawn-runner-maintenance.service
ExecStart=/usr/bin/nspawn-runner chroot-maintenance --if-older 12h
/etc/needrestart/conf.d/nspawn-runner.conf
/etc/nspawn-runner.yaml
package VERSION
`
	version := strings.TrimSpace(h.bash(t, `echo $version`))
	if got = strings.ReplaceAll(got, version, "VERSION"); got != expected {
		t.Errorf("got:\n%s\nwant:\n%s", got, expected)
	}
}

// fiveMinutes is the README, with an image that takes less long than bookworm, which the
// demo builds.
func fiveMinutes(t *testing.T, h host) {
	// The root of a lab holds no overlay; and a purge is to find subvolumes.
	h.bash(t, `
truncate -s 8G /lab/state && mkfs.btrfs -q /lab/state && mount -o loop /lab/state /var/lib/nspawn-runner
systemd-tmpfiles --create nspawn-runner.conf
cat >/etc/nspawn-runner/small.yaml <<-END
	- hosts: all
	  vars:
	    nspawn_runner_chroot_suite: $(. /etc/os-release; echo ${VERSION_CODENAME:-sid})
	  tasks:
	    - ansible.builtin.copy: {dest: /etc/made, content: "by ansible\n"}
END
`)
	out := h.bash(t, `
# Beside the build, which takes long: what later steps need.
{
	quietly apt-get install -qq -y --no-install-recommends bash-completion zsh fish
	quietly apt-get install -qq -y --no-install-recommends --download-only needrestart unattended-upgrades
} & more=$!
nspawn-runner chroot-maintenance
wait $more
nspawn-runner try small -- cat /etc/made
nspawn-runner try small -- systemctl is-system-running
nspawn-runner toml --url https://gitlab.example.org/ --name ci
nspawn-runner doctor --job small || true
`)
	want(t, out, "\nby ansible\n", "\nrunning\n", `config_exec = "/usr/bin/nspawn-runner"`)
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "bad ") && !strings.Contains(line, "gitlab-runner") && !strings.Contains(line, "config.toml") {
			t.Errorf("doctor: %s", out)
			break
		}
	}
	h.bash(t, `
g=/var/lib/nspawn-runner/.generations/base
mkdir -p $g && btrfs -q subvolume create $g/20260101T000000Z && cp -a /opt/base/. $g/20260101T000000Z
btrfs -q subvolume snapshot $g/20260101T000000Z $g/20260201T000000Z
ln -s .generations/base/20260201T000000Z /var/lib/nspawn-runner/base
printf 'id: 2001\nimage: base\nscript: [hostname]\n' >/root/j1.yaml
printf 'id: 2002\nimage: base\nscript: [hostname]\n' >/root/j2.yaml
`+tools+`/simulate --driver /usr/bin/nspawn-runner /root/j1.yaml >/dev/null
`)
}

// renewed replaces the libraries of the systemd-nspawn that runs a machine, as dpkg does.
const renewed = `
pid=$(pgrep -x systemd-nspawn | head -n1)
for library in $(awk '/\.so/ {print $6}' /proc/$pid/maps | sort -u); do
	cp -a $library $library.new && mv $library.new $library
done
`

// restarts shows first that needrestart ends jobs if the package says nothing about it, as their
// machines and gitlab-runner are services with old files.
func restarts(t *testing.T, h host) {
	h.bash(t, `quietly apt-get install -qq -y --no-install-recommends needrestart`)
	out := h.bash(t, `
mv /etc/needrestart/conf.d/nspawn-runner.conf /root
nspawn-runner prepare --id 73 base
echo 'echo begun; sleep infinity' >/root/waits`+renewed+`
nspawn-runner run --id 73 /root/waits >/root/said 2>&1 & waits=$!
until [ -s /root/said ]; do sleep 0.1; done
needrestart -r a
wait $waits && s=0 || s=$?
echo "the job ended with $s"
cat /root/said
nspawn-runner cleanup --id 73
nspawn-runner machine list
mv /root/nspawn-runner.conf /etc/needrestart/conf.d
`)
	want(t, out, "systemctl restart ", "nspawn-runner-73.service", "the job ended with 2\nbegun\n")
	h.bash(t, `
nspawn-runner prepare --id 73 base
echo 'until [ -e /root/go ]; do sleep 0.1; done; echo survived' >/root/waits
nspawn-runner run --id 73 /root/waits >/root/said 2>&1 &
systemd-run --quiet --unit=other.service sleep infinity`+renewed)
	// The list has all services whose libraries were replaced, also those that it leaves alone.
	want(t, h.bash(t, "needrestart -b -r l"), "NEEDRESTART-SVC: nspawn-runner-73.service", "NEEDRESTART-SVC: other.service")
	before := h.bash(t, "systemctl show -P MainPID other.service")
	out = h.bash(t, `
needrestart -r a
echo 'touch /root/go' >/root/script
nspawn-runner run --id 73 /root/script
for i in $(seq 600); do [ -s /root/said ] && break; sleep 0.1; done
cat /root/said
nspawn-runner cleanup --id 73
`)
	want(t, out, "survived\n")
	if after := h.bash(t, "systemctl show -P MainPID other.service"); after == before {
		t.Errorf("needrestart restarted nothing: %s", out)
	}
	h.bash(t, "systemctl stop other.service")
}

// unattended upgrades the package from a repository, with needrestart told to restart
// services by itself, as Ubuntu has it.
func unattended(t *testing.T, h host) {
	out := h.bash(t, playing+`
quietly apt-get install -qq -y --no-install-recommends unattended-upgrades
echo "\$nrconf{restart} = 'a';" >/etc/needrestart/conf.d/auto.conf
mkdir /root/repository && cd /root/repository && cp $newer nspawn-runner.deb
{ dpkg-deb -f nspawn-runner.deb; echo "Filename: ./nspawn-runner.deb"; stat -c 'Size: %s' nspawn-runner.deb
  echo "SHA256: $(sha256sum <nspawn-runner.deb | cut -d' ' -f1)"; } >Packages
{ echo 'Origin: Test'; echo 'Date: '$(date -Ru); echo 'SHA256:'
  echo " $(sha256sum <Packages | cut -d' ' -f1) $(stat -c %s Packages) Packages"; } >Release
chmod 755 /root
echo 'deb [trusted=yes] file:/root/repository ./' >/etc/apt/sources.list.d/test.list
echo 'Unattended-Upgrade::Origins-Pattern { "origin=Test"; };' >/etc/apt/apt.conf.d/99test
apt-get update -qq
nspawn-runner prepare --id 74 base`+strings.ReplaceAll(renewed, "-73.", "-74.")+`
echo 'until [ -e /root/go ]; do sleep 0.1; done; echo survived' >/root/waits
rm -f /root/go /root/said
systemd-run --quiet --unit=gitlab-runner.service -p StandardOutput=file:/root/said nspawn-runner run --id 74 /root/waits
rm -f /root/*.played
touch /root/j1
play /root/j1 & j1=$!
unattended-upgrade --verbose
rm /root/j1
wait $j1
echo played $(cat /root/*.played | wc -l)
needrestart -b -r l
needrestart -r a
dpkg-query --show --showformat='version ${Version}\n' nspawn-runner
echo 'touch /root/go' >/root/script
nspawn-runner run --id 74 /root/script
for i in $(seq 600); do [ -s /root/said ] && break; sleep 0.1; done
cat /root/said
nspawn-runner cleanup --id 74
`)
	// The stage that waits runs a program that is gone: needrestart lists its service.
	want(t, out, "version 9.0\n", "survived\n", "played ", "NEEDRESTART-SVC: gitlab-runner.service", "NEEDRESTART-SVC: nspawn-runner-74.service")
	if strings.Contains(out, "played 0") {
		t.Errorf("no job ended during the upgrade: %s", out)
	}
}
