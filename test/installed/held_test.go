package installed

import (
	"fmt"
	"strings"
	"testing"
)

// holding is what shell functions need that hold jobs where they are, and let them go on.
//
// A job is held by what runs in its machine, which sleeps for so many seconds, or by the stage
// itself: a program that was built for tests stops at a mark (cmd/nspawn-runner/fault.go).
const holding = `
nap=987654
napping() { pgrep -fx "(/bin/)?sleep $nap" || true; }
stopped() { ps -C nspawn-runner -o pid=,stat= | awk '$2 ~ /^T/ {print $1}'; }
# holds NUMBER IMAGE MARK LINES plays a job, whose file has more lines.
holds() {
	printf '%s\n' "id: $1" "image: $2" "$4" >/root/held/$1.yaml
	{
		NSPAWN_RUNNER_MARKS=old NSPAWN_RUNNER_STOP_AT=$3 ` + tools + `/simulate --driver /usr/bin/nspawn-runner --config /root/held/config.yaml /root/held/$1.yaml >/root/held/$1.log 2>&1 && s=0 || s=$?
		echo "job $1: $s" >>/root/held/ended
	} &
}
# await COUNT COMMAND... waits until the command prints so many lines.
await() {
	local i
	for i in $(seq 3000); do
		[ "$("${@:2}" | wc -l)" != "$1" ] || return 0
		sleep 0.1
	done
	echo "want $1 lines:"; "${@:2}"
	tail -n 5 /root/held/*.log; ps -C nspawn-runner,sleep -o pid,stat,args
	return 1
}
`

// heldImages are two images beside base: in machines of one, "git fetch" is held while it
// fetches, and those of the other are held while they boot.
const heldImages = `
mkdir /root/held
# Those that are held have the time that the upgrade takes.
printf '%s\n' 'services: {base: base, boots: boots}' 'boot_timeout: 15m' >/root/held/config.yaml
images=/var/lib/nspawn-runner/.generations
for image in fetches boots; do
	mkdir $images/$image && btrfs -q subvolume snapshot $images/base/20260101T000000Z $images/$image/20260101T000000Z
	ln -s .generations/$image/20260101T000000Z /var/lib/nspawn-runner/$image
done
cd $images/fetches/20260101T000000Z
printf '#!/bin/sh\nsleep '$nap'\nexec "$@"\n' >opt/held && chmod +x opt/held
chroot . sh -c 'git config --system uploadpack.packObjectsHook /opt/held
git init -q -b main /srv/repository && cd /srv/repository && echo fetched >file && git add file
git -c user.name=A -c user.email=a@example.org commit -q -m one'
cd $images/boots/20260101T000000Z
printf '%s\n' '[Unit]' DefaultDependencies=no Before=sysinit.target '[Service]' Type=oneshot "ExecStart=-/bin/sleep $nap" \
	'[Install]' WantedBy=sysinit.target >etc/systemd/system/held.service
systemctl --quiet --root=. enable held.service
cat >/etc/nspawn-runner/booted.yaml <<-END
	- hosts: all
	  vars:
	    nspawn_runner_chroot_suite: $(. /etc/os-release; echo ${VERSION_CODENAME:-sid})
	    nspawn_runner_build: booted
	  tasks:
	    - ansible.builtin.shell: sleep $nap; echo maintained >/etc/made
END
mkdir $images/booted && btrfs -q subvolume snapshot $images/base/20260101T000000Z $images/booted/20260101T000000Z
ln -s .generations/booted/20260101T000000Z /var/lib/nspawn-runner/booted
cd /root
`

// heldJob is a job that is held while the package is upgraded.
type heldJob struct {
	number, image string
	// mark is where the program stops, "" if what runs in a machine holds the job.
	mark string
	// lines are more of the job's file.
	lines string
	// said is a line of the log behind which there is nothing of the old program any more.
	said string
}

// heldJobs are held in each stage.
var heldJobs = []heldJob{
	{"7101", "base", "config: about to answer", "script: [echo configured]", "Preparing environment"},
	{"7102", "base", "prepare: image held", "script: [echo prepared]", "Running on run-7102"},
	{"7103", "boots", "", "script: [echo booted]", "Running on run-7103"},
	{"7104", "base", "machine: first process known", "script: [echo up]", "Running on run-7104"},
	{"7105", "base", "", "services: [{name: boots, alias: other}]\nscript: [echo serves $(getent hosts other | wc -l)]", "Running on run-7105"},
	{"7106", "fetches", "", "repository: file:///srv/repository\nref: main\nscript: [cat file]", "fetched"},
	{"7107", "base", "", "script: [sleep 987654 || echo survived]\nafter_script: [echo came after]", "came after"},
	{"7108", "base", "", "services: [{name: base, alias: other}]\nscript: [sleep 987654 || echo serves $(getent hosts other | wc -l)]\nafter_script: [echo came after]", "came after"},
	{"7109", "base", "machine: about to be stopped", "script: [echo about to end]", ""},
	{"7110", "base", "machine: service stopped", "services: [{name: base, alias: other}]\nscript: [echo half gone]", ""},
	{"7111", "base", "cleanup: machine gone", "script: [echo gone]", ""},
}

// upgrades upgrades the package while jobs are held in each stage, and a maintenance in its
// playbook. What is held ends with the old program; what comes after it is the new one's.
func upgrades(t *testing.T, h host) {
	script, stopped := holding+"quietly dpkg -i $older\n"+heldImages, 0
	for _, j := range heldJobs {
		script += fmt.Sprintf("holds %s %s '%s' $'%s'\n", j.number, j.image, j.mark, strings.ReplaceAll(j.lines, "\n", `\n`))
		if j.mark != "" {
			stopped++
		}
	}
	out := h.bash(t, script+fmt.Sprintf(`
{ nspawn-runner chroot-maintenance booted >/root/held/booted 2>&1 && s=0 || s=$?; echo "maintenance: $s" >>/root/held/ended; } &
await %[1]d stopped
await %[2]d napping
quietly apt-get install -qq -y $deb
[ ! -e /root/held/ended ]
systemctl is-active nspawn-runner-maintenance.timer
echo "lines of machines: $(nspawn-runner machine list | wc -l)"
nspawn-runner gc --dry-run
`+tools+`/simulate --driver /usr/bin/nspawn-runner /root/j1.yaml >/dev/null
kill -CONT $(stopped)
pkill -fx "(/bin/)?sleep $nap"
await %[3]d cat /root/held/ended
sort /root/held/ended
nspawn-runner machine list
nspawn-runner try booted -- cat /etc/made
nspawn-runner chroot-remove booted
nspawn-runner chroot-remove fetches
nspawn-runner chroot-remove boots
rm /etc/nspawn-runner/booted.yaml
dpkg-query --show --showformat='version ${Version}\n' nspawn-runner | sed "s/$version/new/"
`, stopped, len(heldJobs)-stopped+1, len(heldJobs)+1))
	// Those of 7103 to 7110, three services, the maintenance's, and a line above them.
	want(t, out, "active\nlines of machines: 13\nnothing to remove\n", "version new\n", "maintenance: 0\n", "maintained\n")
	for _, j := range heldJobs {
		log := h.bash(t, "cat /root/held/"+j.number+".log")
		_, after, found := strings.Cut(log, "\n"+j.said)
		switch {
		case !strings.Contains(out, "job "+j.number+": 0\n") || !strings.Contains(log, "old: "+j.mark):
			t.Errorf("job %s: %s", j.number, log)
		case j.said != "" && (!found || strings.Contains(after, "old: ")):
			t.Errorf("the old program goes on behind %q in job %s: %s", j.said, j.number, log)
		}
	}
}
