package image

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"nspawn-runner/runner/image/debian"
)

// The programs of a build are faked on PATH: shell scripts, and for
// ansible-playbook this test binary under that name. Each fake notes how it was
// called in calls, a line each.

// fakeBootstrap makes a tree that boots, as far as Check can tell, and in it
// what the real ones copy from the host. FAKE_BOOTSTRAP is run before it ends.
const fakeBootstrap = `
for root; do case $root in /*) break ;; esac; done # a mirror may follow
umask 022
mkdir -p "$root/usr/lib/systemd/system" "$root/usr/bin" "$root/usr/sbin" "$root/etc/apt/apt.conf.d" "$root/var/lib/dbus"
ln -s usr/bin "$root/bin"
for program in lib/systemd/systemd bin/dbus-daemon bin/bash; do
	: > "$root/usr/$program"
	chmod 755 "$root/usr/$program"
done
: > "$root/usr/lib/systemd/system/dbus.socket"
echo buildhost > "$root/etc/hostname"
echo nameserver of the host > "$root/etc/resolv.conf"
echo 0123456789abcdef > "$root/etc/machine-id"
echo 0123456789abcdef > "$root/var/lib/dbus/machine-id"
echo "I: it goes well"
eval "$FAKE_BOOTSTRAP"
`

// fakeNspawn runs the payload in namespaces of its own, but on the host's tree, of
// which /run alone is new.
const fakeNspawn = `
for payload; do :; done
exec unshare --mount --uts --ipc --pid --fork --kill-child --mount-proc /bin/sh -c "mount -t tmpfs run /run && $payload"
`

// fakeAptHelper finds the addresses that FAKE_MIRRORS names.
const fakeAptHelper = `
for address; do case $address in *://*) break ;; esac; done
case " $FAKE_MIRRORS " in
*" $address "*) ;;
*" down "*) echo "E: Failed to fetch $address  Could not connect to mirror.example"; exit 100 ;;
*) echo "E: Failed to fetch $address  404  Not Found [IP: 192.0.2.1]"; exit 100 ;;
esac
`

// fakePrograms puts fakes in front of PATH.
func fakePrograms(t *testing.T) (calls string) {
	if os.Geteuid() != 0 {
		t.Skip("a build makes namespaces: must be root")
	}
	bin := t.TempDir()
	calls = filepath.Join(bin, "calls")
	for name, script := range map[string]string{
		"mmdebstrap":     fakeBootstrap,
		"systemd-nspawn": fakeNspawn,
		"eatmydata":      `exec "$@"`,
		"apt-helper":     fakeAptHelper,
		"apt-get":        "",
		"apt-config":     `echo 'APT::Architecture "amd64";'; echo "$FAKE_APT_CONFIG"`,
	} {
		script = fmt.Sprintf("#!/bin/sh\necho %s \"$*\" >> '%s'\n%s\n", name, calls, script)
		if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	symlink(t, self, filepath.Join(bin, "ansible-playbook"))
	t.Setenv("PATH", bin+":/usr/sbin:/usr/bin:/sbin:/bin")
	t.Setenv("FAKE_CALLS", calls)
	t.Setenv("GORACE", "atexit_sleep_ms=0") // else each fake ansible takes a second
	t.Setenv("FAKE_BOOTSTRAP", "")
	t.Setenv("FAKE_TALLY", "")
	t.Setenv("FAKE_FAILURE", "")
	t.Setenv("FAKE_MIRRORS", "")
	return calls
}

func TestMain(m *testing.M) {
	switch {
	case filepath.Base(os.Args[0]) == "ansible-playbook":
		if err := fakeAnsible(); err != nil {
			fmt.Fprintln(os.Stderr, "fake ansible-playbook:", err)
			os.Exit(4)
		}
	case os.Getenv("TEST_KILLABLE") != "":
		killedOperation()
	case os.Getenv("TEST_CREATE") != "":
		createForever()
	default:
		os.Exit(m.Run())
	}
}

// inventory is what a build tells ansible about the box.
type inventory struct {
	All struct {
		Hosts map[string]struct {
			Connection  string            `json:"ansible_connection"`
			Enter       []string          `json:"ansible_chroot_enter"`
			Environment map[string]string `json:"ansible_chroot_environment"`
		}
	}
}

// fakeAnsible knows playbooks of one play whose `fake` is a script. It is run
// in the box, with the path of the tree in $1. It changes what FAKE_TALLY says.
func fakeAnsible() error {
	calls, err := os.OpenFile(os.Getenv("FAKE_CALLS"), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	dir, _ := os.Getwd()
	if os.Args[1] == "--version" {
		fmt.Println("ansible-playbook [core 2.17.1]\n  config file = None")
		return nil
	}
	fmt.Fprintf(calls, "ansible-playbook %s in %s with proxy %s\n", strings.Join(os.Args[1:], " "), dir, os.Getenv("http_proxy"))
	text, err := os.ReadFile(os.Args[2])
	if err != nil {
		return err
	}
	var hosts inventory
	if err := json.Unmarshal(text, &hosts); err != nil {
		return err
	}
	book, err := os.ReadFile(os.Args[3])
	if err != nil {
		return err
	}
	if tally := os.Getenv("FAKE_TALLY"); tally != "" {
		if err := os.WriteFile(os.Getenv("NSPAWN_RUNNER_TALLY"), []byte(tally), 0o600); err != nil {
			return err
		}
	}
	_, script, _ := strings.Cut(string(book), "fake: ")
	for root, host := range hosts.All.Hosts {
		fmt.Fprintf(calls, "connection %s, proxy inside %s\n", host.Connection, host.Environment["http_proxy"])
		args := append(host.Enter[1:], "/bin/sh", "-c", strings.TrimPrefix(script, "|"), "sh", root)
		cmd := exec.Command(host.Enter[0], args...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			note := cmp.Or(os.Getenv("FAKE_FAILURE"), `{"task": "fake", "lines": ["first", "second", "third", "fourth", "fifth"]}`) + "\n"
			if err := os.WriteFile(os.Getenv("NSPAWN_RUNNER_FAILURES"), []byte(note), 0o600); err != nil {
				return err
			}
			return err
		}
	}
	return nil
}

// fakeStore is a store whose builds run fakes. Its playbooks are given as
// name and text in turn.
func fakeStore(t *testing.T, playbooks ...string) (s *Store, calls string) {
	calls = fakePrograms(t)
	dir := t.TempDir()
	s = &Store{
		StateDir:     filepath.Join(dir, "state"),
		PlaybookDirs: []string{filepath.Join(dir, "etc")},
		Environment:  map[string]string{"http_proxy": "proxy.example:3128"},
	}
	for i := 0; i < len(playbooks); i += 2 {
		write(t, filepath.Join(dir, "etc", playbooks[i]+".yaml"), playbooks[i+1])
	}
	return s, calls
}

// told collects the steps and notes of builds.
func told(lines *[]string) func(Event) {
	var mu sync.Mutex
	return func(event Event) {
		mu.Lock()
		defer mu.Unlock()
		if event.Packages == nil {
			*lines = append(*lines, event.Step+event.Note)
		}
	}
}

// ofSid is a maintenance of an image whose playbook names a suite.
var ofSid = MaintainOptions{Bootstrap: debian.Bootstrap{Suite: "sid"}}

func create(t *testing.T, s *Store, name string) Generation {
	t.Helper()
	generation, err := s.Create(t.Context(), name, CreateOptions{Bootstrap: debian.Bootstrap{Suite: "trixie"}})
	if err != nil {
		t.Fatal(err)
	}
	return generation
}

// wantNothing checks that an image has no chroot and left nothing but its logs.
func wantNothing(t *testing.T, s *Store, name string) {
	t.Helper()
	for _, path := range []string{filepath.Join(s.StateDir, name), s.generations(name)} {
		if exists(path) {
			t.Errorf("%s is there", path)
		}
	}
}

// wantOnly checks which generations an image has, and that nothing is half-made.
// A failed tree may lie beside them.
func wantOnly(t *testing.T, s *Store, name string, generations ...Generation) {
	t.Helper()
	var want []string
	for _, generation := range generations {
		want = append(want, filepath.Base(generation.Name))
	}
	entries, err := os.ReadDir(s.generations(name))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, entry := range entries {
		if !slices.Contains([]string{".build", ".hold", ".failed"}, entry.Name()) && filepath.Ext(entry.Name()) != recordSuffix {
			got = append(got, entry.Name())
		}
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("generations are %q, not %q", got, want)
	}
	if current, err := s.Current(name); err != nil || current != generations[len(generations)-1] {
		t.Errorf("current is %v, %v; not %v", current, err, generations[len(generations)-1])
	}
}

// running says whether a process has this command line.
func running(command string) bool {
	processes, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range processes {
		text, _ := os.ReadFile(path)
		if strings.Join(strings.Split(strings.Trim(string(text), "\x00"), "\x00"), " ") == command {
			return true
		}
	}
	return false
}

func eventually(condition func() bool) bool {
	for range 500 {
		if condition() {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}
