package doctor

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/job"
)

// worst is the worst of findings, and all of their words.
func worst(all []Finding) (State, string) {
	result, words := Good, ""
	for _, f := range all {
		if f.State == Bad || f.State == Warning && result == Good {
			result = f.State
		}
		words += f.Found + " -> " + f.ToDo + "\n"
	}
	return result, words
}

func TestTheDoctorKnowsARunnerThatCallsThisProgram(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "config.toml")
	d := newDoctor(t, "boot_timeout: 60s\n", map[string]string{"image": ""})
	d.Jobs.Program = filepath.Join(dir, "nspawn-runner")
	link, other := filepath.Join(dir, "link"), filepath.Join(dir, "other")
	for _, program := range []string{d.Jobs.Program, other} {
		if err := os.WriteFile(program, nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(d.Jobs.Program, link); err != nil {
		t.Fatal(err)
	}
	block := "concurrent = 4\n" + gitlab.TOML(gitlab.Registration{Driver: d.Jobs.Program, Name: "me"})
	for name, test := range map[string]struct {
		text string
		want State
		says string
	}{
		"as we print it":     {block, Good, `runner "me" calls this program`},
		"by a link":          {strings.ReplaceAll(block, d.Jobs.Program, link), Good, "calls this program"},
		"after another":      {strings.Replace(block, "[[runners]]", "[[runners]]\nname = \"d\"\nexecutor = \"docker\"\n[[runners]]", 1), Good, "calls this program"},
		"another program":    {strings.ReplaceAll(block, d.Jobs.Program, other), Bad, "none of its 1 runners"},
		"no such program":    {strings.ReplaceAll(block, d.Jobs.Program, "/nowhere"), Bad, "none of its 1 runners"},
		"another executor":   {strings.Replace(block, `"custom"`, `"shell"`, 1), Bad, "none of its 1 runners"},
		"no runner":          {"concurrent = 4\n", Bad, "none of its 0 runners"},
		"no TOML":            {"[[runners]\n", Bad, "config.toml: toml: line "},
		"one job at a time":  {strings.Replace(block, "concurrent = 4", "concurrent = 1", 1), Warning, "concurrent"},
		"one stage is off":   {strings.Replace(block, `cleanup_exec = "`+d.Jobs.Program, `cleanup_exec = "`+other, 1), Bad, "cleanup_exec is " + other},
		"no cleanup":         {strings.Replace(block, "cleanup_exec =", "#", 1), Bad, "cleanup_exec is missing"},
		"the wrong command":  {strings.Replace(block, `["gitlab-config"]`, `["config"]`, 1), Bad, `without "gitlab-config"`},
		"another --config":   {strings.Replace(block, `["run"]`, `["--config", "/x.yaml", "run"]`, 1), Warning, "run reads the configuration /x.yaml"},
		"a short prepare":    {strings.Replace(block, "prepare_exec_timeout = 300", "prepare_exec_timeout = 20", 1), Warning, "the stage may need 1m0s"},
		"the original's 200": {strings.Replace(block, "cleanup_exec_timeout = 120", "cleanup_exec_timeout = 200", 1), Good, "calls this program"},
		"a short grace":      {strings.Replace(block, "graceful_kill_timeout = 30", "graceful_kill_timeout = 2", 1), Warning, "graceful_kill_timeout is 2s"},
	} {
		if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, says := worst(d.checkRegistration(path))
		if got != test.want || !strings.Contains(says, test.says) {
			t.Errorf("%s: %s: %s", name, got, says)
		}
	}
	if got, says := worst(d.checkRegistration(filepath.Join(dir, "absent"))); got != Bad || !strings.Contains(says, "nspawn-runner toml") {
		t.Errorf("no file: %s: %s", got, says)
	}
}

func TestTheDoctorKnowsImagesThatNoRunnerAllows(t *testing.T) {
	for vars, want := range map[string]string{
		"privileged: true":         "image image is privileged, and no runner allows that",
		"devices: [/dev/kvm]":      "has devices of the host",
		"binds: ['/srv/x:/x:rw']":  "has writable binds",
		"cloud_metadata: true":     "reaches the cloud's metadata",
		"network: host":            "",
		"binds: [/srv/x, /srv/y]":  "",
		"chroot_suite: sid":        "",
		"shell: /bin/sh":           "",
		"memory_max: 1G":           "",
		"test: echo --allow-image": "",
	} {
		d := newDoctor(t, "", map[string]string{"image": "- vars: {nspawn_runner_" + vars + "}\n"})
		if _, says := worst(d.checkAllowed(nil)); !strings.Contains(says, want) || want == "" && says != "" {
			t.Errorf("%s: %q", vars, says)
		}
		for _, pattern := range []string{"image", "im*", "*"} {
			if found := d.checkAllowed(job.Permission{"other", pattern}); found != nil {
				t.Errorf("%s: allowed by %s, but %v", vars, pattern, found)
			}
		}
	}
	d := newDoctor(t, "network: host\n", map[string]string{"image": "- vars: {nspawn_runner_network: host}\n"})
	if found := d.checkAllowed(nil); found != nil {
		t.Errorf("what all images have: %v", found)
	}
	r, err := gitlab.ParseRunners([]byte(gitlab.TOML(gitlab.Registration{Driver: "/x", Allowed: []string{"a*", "b"}})))
	if err != nil || !slices.Equal(allowedBy(r.Runners[0]), job.Permission{"a*", "b"}) {
		t.Errorf("%v, %v", r, err)
	}
}

func TestTheDoctorKnowsWhoElseHasMachinesUserIDs(t *testing.T) {
	const passwd = "root:x:0:0::/root:/bin/sh\nbelow:x:524287:0::/:/bin/sh\nabove:x:1878982656:0::/:/bin/sh\nodd:x:y\n\nad-user:x:600001:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"
	if got := ownersOf(passwd, 524288, 1878982655); !slices.Equal(got, []string{"ad-user"}) {
		t.Errorf("passwd: %q", got)
	}
}

func TestTheDoctorComparesVersions(t *testing.T) {
	for version, want := range map[string]bool{
		"5.18.19": false, "5.19.0-rc1": true, "6.1.0-18-amd64": true, "10.0": true, "4.20": false, "": false,
	} {
		if atLeast(version, 5, 19) != want {
			t.Errorf("%q: %v", version, !want)
		}
	}
	if !atLeast("252", 252, 0) || !atLeast("257~rc2", 252, 0) || atLeast("247", 252, 0) {
		t.Error("versions of one number")
	}
}

func TestTheDoctorNamesABrokenImage(t *testing.T) {
	d := newDoctor(t, "", map[string]string{"image": "- vars: {nspawn_runner_chroot_suite: sid}\n"})
	if err := os.MkdirAll(filepath.Join(d.Jobs.Config.StateDir, "image", "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got, says := worst(d.checkImages(t.Context())); got != Bad || !strings.Contains(says, "broken image") {
		t.Errorf("%s: %s", got, says)
	}
}

func TestTheDoctorReadsPlaybooksAndImages(t *testing.T) {
	d := newDoctor(t, "", map[string]string{"image": "- vars: {nspawn_runner_chroot_suite: sid}\n"})
	if got, says := worst(d.checkPlaybooks(t.Context())); got != Good || !strings.Contains(says, "1 can be read") {
		t.Errorf("%s: %s", got, says)
	}
	if got, says := worst(d.checkImages(t.Context())); got != Bad || !strings.Contains(says, "image: it has no chroot yet -> nspawn-runner chroot-maintenance image") {
		t.Errorf("%s: %s", got, says)
	}
	d = newDoctor(t, "", map[string]string{"image": "- vars: {nspawn_runner_boot_timeout: tomorrow}\n"})
	if got, says := worst(d.checkPlaybooks(t.Context())); got != Bad || !strings.Contains(says, "image.yaml:1: nspawn_runner_boot_timeout") {
		t.Errorf("%s: %s", got, says)
	}
	d = newDoctor(t, "bootstrap: debootstrap\n", map[string]string{"image": ""})
	t.Setenv("PATH", t.TempDir())
	if got, says := worst(d.checkPrograms(t.Context())); got != Bad || !strings.Contains(says, "apt-get install debootstrap ansible-core") {
		t.Errorf("%s: %s", got, says)
	}
}

func TestTheDoctorWarnsOfPlaybooksThatOtherUsersCanChange(t *testing.T) {
	d := newDoctor(t, "", map[string]string{"image": "- vars: {nspawn_runner_chroot_suite: sid}\n"})
	dir := d.Jobs.Config.PlaybookDir
	path := filepath.Join(dir, "image.yaml")
	for what, change := range map[string]func() error{
		"file for all":       func() error { return os.Chmod(path, 0o666) },
		"file of a user":     func() error { return os.Chown(path, 1000, 0) },
		"file for a group":   func() error { return errors.Join(os.Chown(path, 0, 50), os.Chmod(path, 0o664)) },
		"directory for all":  func() error { return os.Chmod(dir, 0o777) },
		"directory of users": func() error { return os.Chown(dir, 1000, 1000) },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if got, says := worst(d.checkPlaybooks(t.Context())); got != Warning || !strings.Contains(says, "-> chown root:root "+dir) {
			t.Errorf("%s: %s: %s", what, got, says)
		}
		if err := errors.Join(os.Chown(path, 0, 0), os.Chmod(path, 0o664), os.Chown(dir, 0, 0), os.Chmod(dir, 0o775)); err != nil {
			t.Fatal(err)
		}
		if got, says := worst(d.checkPlaybooks(t.Context())); got != Good {
			t.Errorf("back from %s: %s: %s", what, got, says)
		}
	}
}

func TestTheDoctorNamesAPlaybookToCopy(t *testing.T) {
	dir := t.TempDir()
	if got := examplePlaybook(dir); got != "playbooks/bookworm.yaml of the source" {
		t.Error(got)
	}
	path := filepath.Join(dir, "bookworm.yaml")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if got := examplePlaybook(dir); got != path {
		t.Error(got)
	}
}

func TestThePageOfTheDoctorHasEachCheck(t *testing.T) {
	page, err := os.ReadFile("../../docs/operation.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(page), "| check | what it looks at |")
	if !found {
		t.Fatal("docs/operation.md has no table of checks")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	var listed []string
	for row := range strings.Lines(table) {
		if columns := strings.Split(row, "|"); len(columns) > 2 {
			listed = append(listed, strings.Split(strings.TrimSpace(columns[1]), ", ")...)
		}
	}
	for _, check := range newDoctor(t, "", nil).checks("") {
		if !slices.Contains(listed, check.name) {
			t.Errorf("docs/operation.md: no %q in the table of checks", check.name)
		}
	}
}

func TestTheDoctorChecksAllInOrder(t *testing.T) {
	d := newDoctor(t, "min_free_disk: 100%\n", map[string]string{"image": ""})
	all, err := d.Examine(t.Context(), "")
	if err != nil || len(all) < 15 || all[0].Check != "kernel" {
		t.Fatalf("%v: %+v", err, all)
	}
	if !slices.ContainsFunc(all, func(f Finding) bool { return f.Check == "disk space" && f.State == Bad }) {
		t.Errorf("%+v", all)
	}
}

func TestTheDoctorKnowsTheLimitsThatMachinesShare(t *testing.T) {
	sysctls := t.TempDir()
	if err := os.Mkdir(filepath.Join(sysctls, "fs"), 0o755); err != nil {
		t.Fatal(err)
	}
	limit := sharedLimit{"fs.pool", 10, 30, 20, "it is soon empty"}
	for content, test := range map[string]struct {
		want State
		says string
	}{
		"":     {Good, ""}, // a kernel without it
		"10\n": {Good, "fs.pool is 10"},
		"9\n":  {Warning, "fs.pool is 9: it is soon empty -> set fs.pool = 20"},
		"31\n": {Warning, "fs.pool is 31: it is soon empty -> set fs.pool = 20"},
		"x\n":  {Bad, "fs.pool: "},
	} {
		if path := filepath.Join(sysctls, "fs/pool"); content != "" {
			if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		} else if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		if state, words := worst(limit.check(sysctls, filepath.Join(sysctls, "file"))); state != test.want || !strings.Contains(words, test.says) {
			t.Errorf("%q: %s: %s", content, state, words)
		}
	}
	for _, limit := range sharedLimits {
		if limit.least > limit.enough || limit.enough > limit.most || limit.meaning == "" {
			t.Errorf("%+v", limit)
		}
	}
}
