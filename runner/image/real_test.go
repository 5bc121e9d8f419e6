package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nspawn-runner/runner/image/build"
	"nspawn-runner/runner/image/debian"
)

// realPlaybook uses the modules that administrators use most, in the ways that
// go wrong in a tree that is not booted.
const realPlaybook = `
- hosts: all
  vars:
    greeting: hello
  roles: [greeter, own.things.arriver, elsewhere]
  tasks:
    - name: what lies beside the playbook
      copy: {content: "{{ of_group }} {{ sealed }}\n", dest: /etc/variables}
    - name: a repository
      shell: git init --quiet /srv/from && cd /srv/from && git -c user.name=a -c user.email=a commit --quiet --allow-empty -m first
    - name: clone it
      git: {repo: /srv/from, dest: /srv/clone}
    - name: install packages, one with a daemon
      apt:
        name: [sudo, cron]
        update_cache: true
        install_recommends: false
    - name: copy a file
      copy: {content: "copied\n", dest: /etc/copied, mode: "0600"}
    - name: render a template
      template: {src: greeting.j2, dest: /etc/greeting}
      notify: note the greeting
    - name: create a user
      user: {name: builder, shell: /bin/bash}
    - name: make a directory of the user's
      file: {path: /srv/build, state: directory, owner: builder, mode: "0750"}
    - name: run a command
      command: sh -c 'cat /proc/1/comm; ls /proc | grep -c ^[0-9]'
      register: inside
    - name: run a command with input
      command: {cmd: tee /etc/fed, stdin: "r\u00e9sum\u00e9 $HOME"}
    - name: become the user
      become: true
      become_user: builder
      command: sh -c 'id -un > /srv/build/who; hostname >> /srv/build/who'
    - name: enable a unit
      systemd: {name: apt-daily.timer, enabled: true}
    - name: add lines to a file with a loop
      lineinfile: {path: /etc/lines, line: "{{ item }}", create: true}
      loop: [one, two]
    - name: look at the connection and the proxies
      copy:
        content: "{{ ansible_connection }} {{ ansible_service_mgr }} {{ lookup('env', 'no_proxy') }} {{ ansible_env.no_proxy }}\n"
        dest: /etc/facts
    - name: fetch a file
      fetch: {src: /etc/greeting, dest: "{{ playbook_dir }}/fetched", flat: true}
    - name: leave a process behind
      shell: nohup sleep 1000 >/dev/null 2>&1 &
  handlers:
    - name: note the greeting
      shell: cat /etc/greeting >> /etc/handled
`

// realStore is a store whose builds are real. It takes root, a network and most
// of a minute.
func realStore(t *testing.T) *Store {
	if os.Getenv("NSPAWN_RUNNER_REAL") != "1" {
		t.Skip("builds a real image: set NSPAWN_RUNNER_REAL=1")
	}
	if os.Geteuid() != 0 {
		t.Skip("builds a real image: must be root")
	}
	for _, program := range []string{"systemd-nspawn", "nsenter", "ansible-playbook"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("builds a real image: ", err)
		}
	}
	began := time.Now()
	playbooks := t.TempDir()
	write(t, filepath.Join(playbooks, "real.yaml"), realPlaybook)
	write(t, filepath.Join(playbooks, "greeting.j2"), "{{ greeting }} from {{ ansible_distribution_release }}\n")
	beside(t, playbooks)
	return &Store{
		StateDir:     filepath.Join(t.TempDir(), "state"),
		PlaybookDirs: []string{playbooks},
		Environment:  map[string]string{"no_proxy": "nowhere.example"},
		DownloadsMax: 1 << 30,
		BaseMaxAge:   time.Hour,
		Progress: func(event Event) {
			if event.Packages != nil {
				return
			}
			t.Logf("%5.1fs %s: %s%s", time.Since(began).Seconds(), event.Image, event.Step, event.Note)
		},
	}
}

// beside puts beside a playbook what ansible finds there: roles, a collection,
// variables of the group, a vault and the user's own configuration.
func beside(t *testing.T, dir string) {
	t.Helper()
	role := func(says string) string {
		return "- copy: {content: \"" + says + "\\n\", dest: /etc/role-" + says + "}\n"
	}
	write(t, filepath.Join(dir, "roles/greeter/tasks/main.yaml"), role("greeter"))
	write(t, filepath.Join(dir, "collections/ansible_collections/own/things/roles/arriver/tasks/main.yaml"), role("arriver"))
	write(t, filepath.Join(dir, "further/elsewhere/tasks/main.yaml"), role("elsewhere"))
	write(t, filepath.Join(dir, "ansible.cfg"), "[defaults]\nroles_path = further\n")
	write(t, filepath.Join(dir, "group_vars/all/open.yaml"), "of_group: grouped\n")
	write(t, filepath.Join(dir, "group_vars/all/sealed.yaml"), "sealed: secret\n")
	password := filepath.Join(dir, "password")
	write(t, password, "open sesame\n")
	t.Setenv("ANSIBLE_VAULT_PASSWORD_FILE", password)
	out, err := exec.Command("ansible-vault", "encrypt", filepath.Join(dir, "group_vars/all/sealed.yaml")).CombinedOutput()
	if err != nil {
		t.Fatalf("ansible-vault: %v: %s", err, out)
	}
}

func TestRealImageIsCreatedMaintainedAndEdited(t *testing.T) {
	s := realStore(t)
	ctx := t.Context()
	first, err := s.Create(ctx, "real", CreateOptions{Bootstrap: debian.Bootstrap{Suite: "trixie"}})
	if err != nil {
		t.Fatal(err, dump(s))
	}
	began := time.Now()
	if err := Check(first.Path); err != nil {
		t.Error(err)
	}
	t.Logf("check: %v", time.Since(began))
	for path, want := range map[string]string{
		"etc/hostname":   "real\n",
		"etc/machine-id": "",
		"etc/copied":     "copied\n",
		"etc/greeting":   "hello from trixie\n",
		"etc/handled":    "hello from trixie\n",
		"etc/variables":  "grouped secret\n",

		"etc/role-greeter":    "greeter\n",
		"etc/role-arriver":    "arriver\n",
		"etc/role-elsewhere":  "elsewhere\n",
		"srv/clone/.git/HEAD": "ref: refs/heads/master\n",
		"etc/fed":             "r\u00e9sum\u00e9 $HOME\n",
		"etc/lines":           "one\ntwo\n",
		"srv/build/who":       "builder\nreal\n",
		"etc/facts":           "chroot systemd nowhere.example nowhere.example\n",
	} {
		if got := read(t, filepath.Join(first.Path, path)); got != want {
			t.Errorf("/%s is %q, not %q", path, got, want)
		}
	}
	if got := read(t, filepath.Join(s.PlaybookDirs[0], "fetched")); got != "hello from trixie\n" {
		t.Errorf("fetched %q", got)
	}
	for _, path := range []string{"etc/resolv.conf", "usr/sbin/policy-rc.d", "etc/hosts.nspawn-runner"} {
		if exists(filepath.Join(first.Path, path)) {
			t.Errorf("/%s was left in the image", path)
		}
	}
	if out, _ := exec.Command("grep", "-rIl", "nowhere.example", first.Path+"/etc", first.Path+"/root", first.Path+"/var/lib").Output(); strings.TrimSpace(string(out)) != first.Path+"/etc/facts" {
		t.Errorf("the environment of the build is stored in %s", out)
	}

	write(t, filepath.Join(s.PlaybookDirs[0], "another.yaml"), realPlaybook)
	if _, err := s.Create(ctx, "another", CreateOptions{Bootstrap: debian.Bootstrap{Suite: "trixie"}}); err != nil {
		t.Fatal(err, dump(s))
	}
	fetched, kept, steps := downloaded(t, s, "another")
	if !strings.Contains(steps, "== copy the base of trixie\n") || fetched > 1<<20 || kept < 5<<20 {
		t.Errorf("the second image of a suite: %d bytes from mirrors, %d kept; steps\n%s", fetched, kept, steps)
	}
	if debs, _ := filepath.Glob(filepath.Join(first.Path, "var/cache/apt/archives/*.deb")); len(debs) != 0 {
		t.Errorf("packages were left in the image: %q", debs)
	}

	second, _, err := s.Maintain(ctx, "real", MaintainOptions{Bootstrap: debian.Bootstrap{Suite: "trixie"}})
	if err != nil {
		t.Fatal(err, dump(s))
	}
	if got := read(t, filepath.Join(second.Path, "etc/handled")); got != "hello from trixie\n" {
		t.Errorf("the second run of the playbook changed something: %q", got)
	}

	third, err := s.Edit(ctx, "real", func(ctx context.Context, root string) error {
		in, out, err := os.Pipe()
		if err != nil {
			return err
		}
		defer in.Close()
		if _, err := out.WriteString("echo by hand > /etc/edited; getent hosts localhost; hostname; echo $no_proxy; exit\n"); err != nil {
			return err
		}
		out.Close()
		return s.Shell(ctx, root, in, os.Stderr, os.Stderr)
	})
	if err != nil {
		t.Fatal(err, dump(s))
	}
	if got := read(t, filepath.Join(third.Path, "etc/edited")); got != "by hand\n" {
		t.Errorf("the shell wrote %q", got)
	}
	if current, err := s.Current("real"); err != nil || current != third {
		t.Errorf("current is %v, %v", current, err)
	}
	t.Run("failures leave nothing", func(t *testing.T) { realFailures(t, s) })
}

// downloaded reads in the log of an image's build what it downloaded, and the
// log's headings.
func downloaded(t *testing.T, s *Store, image string) (fetched, kept int, headings string) {
	t.Helper()
	logs, _ := filepath.Glob(filepath.Join(s.StateDir, ".logs", image+"-*"))
	for line := range strings.Lines(read(t, logs[len(logs)-1])) {
		var mirrors, earlier int
		if n, _ := fmt.Sscanf(line, "== downloads: %d bytes from mirrors, %d bytes kept", &mirrors, &earlier); n == 2 {
			fetched, kept = fetched+mirrors, kept+earlier
		}
		if strings.HasPrefix(line, "== ") {
			headings += line
		}
	}
	return fetched, kept, headings
}

func TestRealSidAndAFamilyMemberByMirrorAndKeyring(t *testing.T) {
	s := realStore(t)
	want := func(generation Generation, sources string) {
		t.Helper()
		if err := Check(generation.Path); err != nil {
			t.Error(err)
		}
		if packages, err := debian.Packages(generation.Path); err != nil || packages["hello"] == "" || packages["systemd-sysv"] == "" {
			t.Errorf("it has %d packages, %v", len(packages), err)
		}
		if got := read(t, filepath.Join(generation.Path, "etc/apt/sources.list")); !strings.Contains(got, sources) {
			t.Errorf("sources.list is %q", got)
		}
		if debs, _ := filepath.Glob(filepath.Join(generation.Path, "var/cache/apt/archives/*.deb")); len(debs) != 0 {
			t.Errorf("packages were left in the image: %q", debs)
		}
	}
	sid := debian.Bootstrap{Suite: "sid", Program: "mmdebstrap", Components: []string{"main", "contrib"}, Include: []string{"hello"}}
	generation, err := s.Create(t.Context(), "sid", CreateOptions{Bootstrap: sid})
	if err != nil {
		t.Fatal(err, dump(s))
	}
	want(generation, " sid main contrib")

	// No mirror of Ubuntu is in reach: what was just downloaded, signed with a key
	// of our own, plays its part. debootstrap makes of it what it would of Ubuntu. Its
	// Release files are those of a snapshot: their time is over.
	dir, keyring := familyMirror(t, filepath.Join(s.StateDir, ".downloads"))
	jammy := debian.Bootstrap{
		Suite: "jammy", Program: "mmdebstrap", Mirror: "file://" + dir, Keyring: keyring, Include: []string{"hello"},
	}
	write(t, filepath.Join(s.PlaybookDirs[0], "jammy.yaml"), "- hosts: all\n  tasks: [command: apt-get -o APT::Update::Error-Mode=any update]\n")
	bin := t.TempDir() // this host may have exceptions of its own
	write(t, filepath.Join(bin, "apt-config"), "#!/bin/sh\n[ \"$*\" = dump ] || exec /usr/bin/apt-config \"$@\"\n")
	if err := os.Chmod(filepath.Join(bin, "apt-config"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	_, err = s.Create(t.Context(), "jammy", CreateOptions{Bootstrap: jammy})
	if err == nil || !strings.Contains(err.Error(), "nspawn_runner_check_valid_until: false") {
		t.Fatalf("a mirror whose time is over: %v%s", err, dump(s))
	}
	t.Log(err)
	jammy.AnyAge = true
	for _, jammy.Program = range []string{"mmdebstrap", "debootstrap"} {
		if generation, err = s.Create(t.Context(), "jammy", CreateOptions{Bootstrap: jammy}); err != nil {
			t.Fatal(err, dump(s))
		}
		of := "deb file://" + dir + " jammy"
		want(generation, of+" main\n")
		want(generation, of+"-updates main\n"+of+"-security main\n")
		if packages, err := debian.Packages(generation.Path); err != nil || packages["hello"] != "100" {
			t.Errorf("%s: hello is %s, %v: not that of jammy-security", jammy.Program, packages["hello"], err)
		}
		if lists, _ := filepath.Glob(filepath.Join(generation.Path, "var/lib/apt/lists/*jammy-security*Packages*")); len(lists) == 0 {
			t.Errorf("%s: apt in the image did not read the mirror", jammy.Program)
		}
		if _, err := s.Remove(t.Context(), "jammy"); err != nil {
			t.Fatal(err)
		}
	}
}

// familyMirror makes a mirror of kept downloads, with the suite jammy and its
// corrections: newer versions of hello.
func familyMirror(t *testing.T, downloads string) (dir, keyring string) {
	t.Helper()
	dir = t.TempDir()
	keyring = filepath.Join(dir, "keys.gpg")
	cmd := exec.Command("sh", "-euc", `
export GNUPGHOME=$PWD/gpg
architecture=$(dpkg --print-architecture)
mkdir -m 700 gpg; mkdir pool
gpg --batch --quiet --passphrase '' --quick-gen-key ci@example.org ed25519 sign never
gpg --batch --export > keys.gpg
for suite in jammy jammy-updates jammy-security; do mkdir -p dists/$suite/main/binary-$architecture; done
add() { # the package deb to a suite
	sum=$(sha256sum < deb | cut -d' ' -f1)
	{ dpkg-deb -f deb; printf 'Filename: pool/%s.deb\nSize: %s\nSHA256: %s\n\n' $sum $(stat -c %s deb) $sum; } >> dists/$1/main/binary-$architecture/Packages
	mv deb pool/$sum.deb
}
newer() { # hello of a version to a suite
	sed -i "s/^Version: .*/Version: $1/" hello/DEBIAN/control
	dpkg-deb --build hello deb > /dev/null
	add $2
}
for kept in "$0"/*; do
	tail -c +66 "$kept" > deb
	name=$(dpkg-deb -f deb Package 2>/dev/null) || continue
	[ $name != hello ] || [ -d hello ] || dpkg-deb -R deb hello
	add jammy
done
newer 99 jammy-updates
newer 100 jammy-security
for suite in jammy jammy-updates jammy-security; do (
	cd dists/$suite
	gzip -k main/*/Packages
	{
		printf 'Origin: Ubuntu\nSuite: %s\nCodename: %s\nComponents: main\nArchitectures: %s\n' $suite $suite $architecture
		printf 'Date: %s\nValid-Until: %s\nSHA256:\n' "$(date -Ru -d '-9 days')" "$(date -Ru -d '-2 days')"
		for file in main/*/*; do echo " $(sha256sum < $file | cut -d' ' -f1) $(stat -c %s $file) $file"; done
	} > Release
	gpg --batch --clearsign -o InRelease Release
	gpg --batch -abs -o Release.gpg Release
); done
gpgconf --kill gpg-agent
`, downloads)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make a mirror: %v: %s", err, out)
	}
	// Nobody but root need see a test's directories, but apt's own user must.
	for parent := dir; parent != "/" && parent != os.TempDir(); parent = filepath.Dir(parent) {
		if err := os.Chmod(parent, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir, keyring
}

// realFailures fails in the ways that only real programs do. There is a base of
// trixie, and of bookworm none.
func realFailures(t *testing.T, s *Store) {
	write(t, filepath.Join(s.PlaybookDirs[0], "bad.yaml"), `
- hosts: all
  tasks:
    - name: a package that is nowhere
      command: sh -c 'echo first >&2; echo second >&2; exit 3'
`)
	_, err := s.Create(t.Context(), "nowhere", CreateOptions{Bootstrap: debian.Bootstrap{Suite: "nosuchsuite"}})
	t.Log(err)
	wantNothing(t, s, "nowhere")
	_, err = s.Create(t.Context(), "bad", CreateOptions{Bootstrap: debian.Bootstrap{Suite: "trixie"}})
	t.Log(err)
	var step *build.StepError
	if !errors.As(err, &step) || !strings.Contains(err.Error(), "a package that is nowhere") || !strings.Contains(err.Error(), "second") {
		t.Errorf("the error does not say what failed: %v", err)
	}
	if current, err := s.Current("bad"); !errors.Is(err, ErrNoChroot) {
		t.Errorf("published: %v, %v", current, err)
	}
	if _, err := s.Prune(t.Context(), "bad", KeptGenerations); err != nil {
		t.Error(err)
	}
	wantNothing(t, s, "bad")

	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(5*time.Second, cancel)
	began := time.Now()
	_, err = s.Create(ctx, "cancelled", CreateOptions{Bootstrap: debian.Bootstrap{Suite: "bookworm"}})
	t.Logf("%v, after %v", err, time.Since(began))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the error is not that of the context: %v", err)
	}
	wantNothing(t, s, "cancelled")
}

// dump is the end of the newest log, to find out why a real build failed.
func dump(s *Store) string {
	logs, _ := filepath.Glob(filepath.Join(s.StateDir, ".logs", "*"))
	if len(logs) == 0 {
		return ""
	}
	text, _ := os.ReadFile(logs[len(logs)-1])
	return "\n" + string(text[max(0, len(text)-5000):])
}
