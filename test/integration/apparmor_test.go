package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// pastaProfile is the file of the profile that confines pasta on this host: Debian 12 has one
// for passt, of which pasta is a link.
func pastaProfile(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"usr.bin.pasta", "usr.bin.passt"} {
		if path := filepath.Join("/etc/apparmor.d", name); exists(path) {
			return path
		}
	}
	t.Fatal("this host has no profile for pasta, so this shows nothing")
	return ""
}

// labelOf is the AppArmor label of a process.
func labelOf(t *testing.T, pid string) string {
	t.Helper()
	label, err := os.ReadFile("/proc/" + pid + "/attr/current")
	must(t, err)
	return strings.TrimSpace(string(label))
}

func TestInAVMPastaWorksWithTheProfileThatDebianHasForIt(t *testing.T) {
	needVM(t)
	profile := strings.TrimPrefix(filepath.Base(pastaProfile(t)), "usr.bin.")
	h := withNetwork(t, "private")
	shell(t, "dmesg --clear")
	id := h.prepared(t, "bookworm")
	if label := labelOf(t, pasta(t, id)); label != profile+" (enforce)" {
		t.Errorf("pasta's label is %s", label)
	}
	d := openDoor(t, "tcp4", ownAddress(t)+":0")
	if c := h.run(t, id, ask(ownAddress(t), d.port(t))); c.stdout != "the host\n" {
		t.Errorf("%+v", c)
	}
	if denied := shell(t, "dmesg | grep DENIED || true"); denied != "" {
		t.Error(denied)
	}
	wantLog(t, h.drive(t, "doctor").stdout, "pasta runs with "+profile+" (enforce)")
}

func TestInAVMAProfileThatDeniesPastaSomethingIsNamed(t *testing.T) {
	needVM(t)
	path := pastaProfile(t)
	profile := strings.TrimPrefix(filepath.Base(path), "usr.bin.")
	h := withNetwork(t, "private")
	reload := "apparmor_parser --replace --skip-cache "
	t.Cleanup(func() { shell(t, reload+path+"; dmesg --clear") })
	strict := filepath.Join(t.TempDir(), "strict")
	shell(t, `sed 's|^}$|audit deny /dev/net/tun rw,\n}|' `+path+" >"+strict+" && "+reload+strict)
	c := h.drive(t, "prepare", "--id", newID(), "bookworm")
	if c.status != 2 {
		t.Errorf("prepare: exit %d", c.status)
	}
	wantLog(t, c.stderr, "network private: pasta: ", "; AppArmor: profile "+profile+" denied ")
	wantLog(t, h.drive(t, "doctor").stdout, "machines with a private network may have none: profile "+profile+" denied ",
		"correct "+path+" and reload it")
}

func TestInAVMProfilesOfTheHostDoNotReachIntoMachinesAndBuilds(t *testing.T) {
	needVM(t)
	h := onHost(t, "btrfs")
	profile := filepath.Join(t.TempDir(), "profile")
	must(t, os.WriteFile(profile, []byte("profile nspawn-runner-test /usr/bin/tac { /usr/bin/tac r, }\n"), 0o644))
	shell(t, "apparmor_parser --add --skip-cache "+profile)
	t.Cleanup(func() { shell(t, "apparmor_parser --remove "+profile) })
	if out := shell(t, "tac /etc/hostname 2>&1 && echo works; true"); strings.Contains(out, "works") {
		t.Errorf("the profile does not even apply on the host, so this shows nothing: %s", out)
	}
	h.addImage(t, "privileged", "")
	h.book(t, "privileged", "nspawn_runner_privileged: true")
	for _, image := range []string{"bookworm", "privileged"} {
		if c := h.run(t, h.prepared(t, image), "echo works | tac; cat /proc/self/attr/current"); c.stdout != "works\nunconfined\n" {
			t.Errorf("%s: %+v", image, c)
		}
	}
	h.book(t, "privileged", "nspawn_runner_privileged: true", `- ansible.builtin.shell: "(echo works | tac; cat /proc/self/attr/current) >/said"`)
	h.drives(t, "chroot-maintenance", "privileged")
	if c := h.run(t, h.prepared(t, "privileged"), "cat /said"); c.stdout != "works\nunconfined\n" {
		t.Errorf("what a build said: %+v", c)
	}
}

func TestAttacksOnTheHostsAppArmorAreHeldInAVM(t *testing.T) {
	needVM(t)
	h := onHost(t, "btrfs")
	a := attacked{h: h, id: h.prepared(t, "bookworm")}
	const securityfs = `mkdir -p /mnt/s; unshare --mount --propagation=private sh -c "mount -t securityfs none /mnt/s; s=/mnt/s/apparmor; [ -e \$s ] || s=/sys/kernel/security/apparmor; `
	for _, what := range []attempt{
		{"read the names of the host's profiles", securityfs + `cat \$s/profiles || exit 1"`, onTheHost},
		{"load a profile", securityfs + `echo >>\$s/.load 2>&1 && exit; [ -w \$s/.load ] || exit 1"`, onTheHost},
		{"make a policy namespace", securityfs + `n=\$s/policy/namespaces/attack; mkdir \$n && rmdir \$n || exit 1"`, onTheHost},
		{"enter a profile of the host, or its policy namespace", `for p in pasta passt; do for n in "$p" ":root:$p" "://$p" "//$p" ":nspawn-runner:$p"; do echo "exec $n" >/proc/self/attr/exec && echo "$n" && exit 0; done; done; exit 1`, onTheHost},
		{"change a setting of AppArmor", `mkdir -p /mnt/s; unshare --mount --propagation=private sh -c "mount -t proc none /mnt/s; for f in /mnt/s/sys/kernel/*apparmor* /sys/module/apparmor/parameters/audit; do v=\$(cat \$f) && echo \$v >\$f && echo \$f && exit; done; exit 1"`, onTheHost},
	} {
		a.attempt(t, what)
	}
}
