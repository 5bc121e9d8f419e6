package config

import (
	"flag"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"
)

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAnEmptyFileMeansDefaults(t *testing.T) {
	for _, text := range []string{"", "\n# nothing\n", "---\n", "{}"} {
		c, err := Load(file(t, text))
		if err != nil || c.StateDir != "/var/lib/nspawn-runner" || c.BootTimeout != time.Minute || c.CPUWeight != 50 {
			t.Errorf("%q: %+v, %v", text, c, err)
		}
	}
}

func TestKeysAreSet(t *testing.T) {
	c, err := Load(file(t, "state_dir: /srv//ci\nbackend: tmpfs\nboot_timeout: 90\nmemory_max: 2G\nenvironment:\n  http_proxy: http://proxy.example\n"))
	if err != nil || c.StateDir != "/srv/ci" || c.Backend != "tmpfs" || c.BootTimeout != 90*time.Second ||
		c.MemoryMax.Bytes(1) != 2<<30 || c.Environment["http_proxy"] != "http://proxy.example" {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestMistakesAreNamedWithFileAndLine(t *testing.T) {
	for text, want := range map[string]string{
		"backend: zfs\n":                     ":1: backend: want one of",
		"\nbackned: btrfs\n":                 ":2: unknown key \"backned\", did you mean backend?",
		"completely_different: 1\n":          ":1: unknown key \"completely_different\"; nspawn-runner.yaml(5) lists the keys",
		"swap_max: 1G\n":                     ":1: unknown key \"swap_max\", did you mean memory_swap_max?",
		"privileged: true\n":                 ":1: unknown key \"privileged\"; it is set for each image, as nspawn_runner_privileged in the playbook",
		"nspawn_runner_memory_max: 1G\n":     ":1: unknown key \"nspawn_runner_memory_max\"; in the configuration file it is memory_max",
		"tasks_max: 1\n":                     "want a number from 64 to",
		"state_dir: relative\n":              "want an absolute path",
		"state_dir: //\n":                    "want a directory of its own",
		"tasks_max: 99\n---\ncpus: 1\n":      ":2: a second document",
		"tasks_max: 99\n---\n[\n":            "line 3: did not find",
		"network: *EOF\n":                    "unknown anchor 'EOF'",
		"memory_max: 0\n":                    "want at least 16M",
		"disk_max: 1M\n":                     "want at least 64M",
		"memory_max: 500%\n":                 "want an amount like",
		"memory_max: 99999999999T\n":         "want an amount like",
		"cpu_weight: [1]\n":                  "want a number",
		"boot_timeout: soon\n":               "want a time like",
		"environment: 3\n":                   "NAME: value",
		"mirror: ftp://x/debian\n":           "want an address like",
		"security_mirror: security\n":        "want auto, none or an address like",
		"security_mirror: [none]\n":          "want auto, none or an address like",
		"mirror: 'http://x/debian main'\n":   "want an address like",
		"mirror: file://host/x\n":            "want an address like",
		"mirror: '--option'\n":               "want an address like",
		"components: main --x\n":             "\"--x\" is not a valid name",
		"components: []\n":                   "at least one word",
		"components: {a: b}\n":               "want a list",
		"keyring: debian.gpg\n":              "want an absolute path",
		"variant: tiny\n":                    "want one of",
		"bootstrap: cdebootstrap\n":          "want one of",
		"\n\nvarient: buildd\n":              ":3: unknown key \"varient\", did you mean variant?",
		"base_max_age: -1h\n":                "want 0 or a time",
		"download_cache_max: lots\n":         "want an amount like",
		"min_free_disk: infinity\n":          "want an amount like 2G, 512M, 10% or 0",
		"min_free_memory: -1\n":              "want an amount like",
		"- a list\n":                         "key: value",
		"backend: btrfs\nbackend: overlay\n": ":2: backend is set twice",
		"a: [\n":                             "yaml:",
	} {
		path := file(t, text)
		_, err := Load(path)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestAFileThatWasAskedForMustBeThere(t *testing.T) {
	if _, err := Load("/nowhere/config.yaml"); err == nil {
		t.Error("no error")
	}
}

func TestAPlaybooksVariablesOverrideTheFile(t *testing.T) {
	var vars map[string]yaml.Node
	text := "nspawn_runner_backend: tmpfs\nnspawn_runner_maint_recreate: yes\nnspawn_runner_chroot_suite: sid\n"
	if err := yaml.Unmarshal([]byte(text), &vars); err != nil {
		t.Fatal(err)
	}
	host := Default()
	c, err := host.ForImage("sid.yaml", vars)
	if err != nil || c.Backend != "tmpfs" || !c.MaintRecreate || c.ChrootSuite != "sid" {
		t.Errorf("%+v, %v", c, err)
	}
	if host.Backend != "auto" {
		t.Error("the host's own configuration changed")
	}
	if err := yaml.Unmarshal([]byte("\nnspawn_runner_state_dir: /x\n"), &vars); err != nil {
		t.Fatal(err)
	}
	if _, err := host.ForImage("sid.yaml", vars); err == nil || !strings.Contains(err.Error(), `playbook sid.yaml:2: unknown key "nspawn_runner_state_dir"; state_dir is set in the configuration file`) {
		t.Errorf("a setting of the host in a playbook: %v", err)
	}
}

func TestAPlaybookSaysWhatTheImageIsMadeOf(t *testing.T) {
	var vars map[string]yaml.Node
	text := `nspawn_runner_chroot_suite: noble
nspawn_runner_mirror: http://archive.example:8080/ubuntu
nspawn_runner_components: main restricted,universe
nspawn_runner_keyring: /usr/share/keyrings/ubuntu-archive-keyring.gpg
nspawn_runner_include: [build-essential, g++, libstdc++6]
nspawn_runner_variant: buildd
nspawn_runner_bootstrap: debootstrap
nspawn_runner_security_mirror: https://security.example/ubuntu
nspawn_runner_updates: no
nspawn_runner_check_valid_until: false
`
	if err := yaml.Unmarshal([]byte(text), &vars); err != nil {
		t.Fatal(err)
	}
	c, err := Default().ForImage("noble.yaml", vars)
	if err != nil || c.ChrootSuite != "noble" || c.Mirror != "http://archive.example:8080/ubuntu" ||
		!slices.Equal(c.Components, []string{"main", "restricted", "universe"}) ||
		c.Keyring != "/usr/share/keyrings/ubuntu-archive-keyring.gpg" ||
		!slices.Equal(c.Include, []string{"build-essential", "g++", "libstdc++6"}) ||
		c.Variant != "buildd" || c.Bootstrap != "debootstrap" ||
		c.SecurityMirror != "https://security.example/ubuntu" || c.Updates || c.CheckValidUntil {
		t.Errorf("%+v, %v", c, err)
	}
	for text, want := range map[string]string{
		"nspawn_runner_chroot_suite: --keyring=x":   "x.yaml:1: nspawn_runner_chroot_suite: \"--keyring=x\" is not",
		"nspawn_runner_chroot_suite: ../x":          "x.yaml:1: nspawn_runner_chroot_suite",
		"nspawn_runner_chroot_suite: [sid]":         "x.yaml:1: nspawn_runner_chroot_suite",
		"nspawn_runner_chroot_suite: '{{ suite }}'": "x.yaml:1: nspawn_runner_chroot_suite",
		"nspawn_runner_maint_recreate: perhaps":     "x.yaml:1: nspawn_runner_maint_recreate",
		"nspawn_runner_maint_recreate: {}":          "x.yaml:1: nspawn_runner_maint_recreate",
		"nspawn_runner_include: [git, ./x.deb]":     "x.yaml:1: nspawn_runner_include: \"./x.deb\"",
		"nspawn_runner_include:\n- [a]":             "x.yaml:2: nspawn_runner_include: want a list",

		"nspawn_runner_aliases: {a: b}":   "x.yaml:1: nspawn_runner_aliases: want a list of words",
		"nspawn_runner_aliases: ['x:*']":  "x.yaml:1: nspawn_runner_aliases: \"x:*\" is a pattern: write it to images:",
		"nspawn_runner_aliases: [a, b=c]": "x.yaml:1: nspawn_runner_aliases: \"b=c\" is not a name",

		"nspawn_runner_environment: [A]":               "x.yaml:1: nspawn_runner_environment: want lines of the form",
		"nspawn_runner_environment:\n  A: 1\n  B: [x]": "x.yaml:2: nspawn_runner_environment: B: want one value",
		"nspawn_runner_environment:\n  A: 1\n  B-C: x": "x.yaml:3: nspawn_runner_environment: \"B-C\" is not the name",
		"nspawn_runner_environment:\n  UID: 1":         "x.yaml:2: nspawn_runner_environment: UID is the shell's own",
		`nspawn_runner_environment: {A: "\0"}`:         "x.yaml:1: nspawn_runner_environment: A: a variable has no NUL",
	} {
		var vars map[string]yaml.Node
		if err := yaml.Unmarshal([]byte(text), &vars); err != nil {
			t.Fatal(err)
		}
		if _, err := Default().ForImage("x.yaml", vars); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

func TestTheEnvironmentOfAnImageIsItsJobsAndThatOfTheFileIsTheBuilds(t *testing.T) {
	host, err := Load(file(t, "environment: {http_proxy: x}\n"))
	if err != nil {
		t.Fatal(err)
	}
	var vars map[string]yaml.Node
	if err := yaml.Unmarshal([]byte("nspawn_runner_environment: {LANG: C.UTF-8, N: 08, EMPTY: }"), &vars); err != nil {
		t.Fatal(err)
	}
	c, err := host.ForImage("x.yaml", vars)
	if err != nil || !maps.Equal(c.Environment, map[string]string{"http_proxy": "x"}) ||
		!maps.Equal(c.JobEnvironment, map[string]string{"LANG": "C.UTF-8", "N": "08", "EMPTY": ""}) {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestASecurityMirrorIsFoundNamedOrNone(t *testing.T) {
	for text, want := range map[string]string{"": "", "security_mirror: auto\n": "", "security_mirror: none\n": "none", "security_mirror: file:///srv/x\n": "file:///srv/x"} {
		if c, err := Load(file(t, text)); err != nil || c.SecurityMirror != want || !c.Updates || !c.CheckValidUntil {
			t.Errorf("%q: %+v, %v", text, c, err)
		}
	}
}

func TestImagesStayInTheOrderOfTheFile(t *testing.T) {
	c, err := Load(file(t, "images:\n  debian:12: bookworm\n  \"*/z/*\": sid\n  '*/a.c?': trixie\n"))
	if err != nil || len(c.Images) != 3 || c.Images[0].IsPattern() || c.Images[1].Image != "sid" || c.Images[2].Image != "trixie" {
		t.Fatalf("%+v, %v", c.Images, err)
	}
	for written, want := range map[string][3]bool{
		"debian:12": {true}, "x/z/": {false, true}, "host/x/y/z/b:c": {false, true}, "z/b": {},
		"x/a.cd": {false, false, true}, "x/abcd": {}, "x/a.c": {}, "x\n/a.c\n": {false, false, true}, "/z/a/a.cd": {false, true, true},
	} {
		for i, m := range c.Images {
			if m.Fits(written) != want[i] {
				t.Errorf("%q fits %s: %v", written, m.Written, !want[i])
			}
		}
	}
	for text, want := range map[string]string{
		"images: [a]":                       ":1: images: want lines of the form",
		"images:\n  a: b\n  'a': c":         `:3: images: "a" is there twice`,
		"images:\n  a: b\n  c: '../x'":      `:3: images: "c": want the name of an image on this host`,
		"images:\n  a: [b]":                 `:2: images: "a": want the name of an image`,
		"images:\n  '': b":                  ":2: images: want a name or a pattern",
		"images:\n  a: &a {}\n  <<: {b: c}": ":2: images: ",
		"images:\n  <<: {b: c}":             ":2: images: want a name or a pattern",
		"default_image: debian:12":          ":1: default_image: want the name of an image",
		"images:\n  */x: b":                 "yaml: line 2",
		"images:\n  [a, b]: c":              ":2: images: want a name or a pattern",
		"images: {x: .machines}":            `:1: images: "x": want the name`,
		"default_image: " + "x123456789012345678901234567890123456789012345678901234567890123456789": ":1: default_image: want",
	} {
		if _, err := Load(file(t, text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

func TestAServiceIsAnImageThatSomebodySaysIsOne(t *testing.T) {
	c, err := Load(file(t, "services: {'postgres:*': pg, redis: redis}\nservices_max: 3\nservice_memory_max: 1G\nservice_cpus: 50%\n"))
	if err != nil || len(c.Services) != 2 || !c.Services[0].Fits("postgres:16") || c.Services[0].Image != "pg" || c.Services[1].IsPattern() || c.ServicesMax != 3 ||
		c.ServiceMemoryMax.Bytes(1) != 1<<30 || c.ServiceCPUs != 0.5 || c.ServiceTimeout != 30*time.Second || c.ServicesRequired {
		t.Errorf("%+v, %v", c, err)
	}
	var vars map[string]yaml.Node
	text := "nspawn_runner_service: ['postgres:*', pg]\nnspawn_runner_ready: pg_isready -d '{{x}}'\nnspawn_runner_service_start: |\n  a\n  b\nnspawn_runner_service_timeout: 2m\nnspawn_runner_services_required: true\n"
	if err := yaml.Unmarshal([]byte(text), &vars); err != nil {
		t.Fatal(err)
	}
	c, err = c.ForImage("pg.yaml", vars)
	if err != nil || len(c.Service) != 2 || !c.Service[0].Fits("postgres:") || c.Service[0].Fits("xpostgres:1") || !c.Service[1].Fits("pg") ||
		c.Ready != "pg_isready -d '{{x}}'" || c.ServiceStart != "a\nb\n" || c.ServiceTimeout != 2*time.Minute || !c.ServicesRequired {
		t.Errorf("%+v, %v", c, err)
	}
	for text, want := range map[string]string{
		"services: [a]":           ":1: services: want lines of the form",
		"services: {a: '../x'}":   `:1: services: "a": want the name of an image`,
		"services_max: 65":        ":1: services_max: want a number from 0 to 64",
		"service_timeout: 0":      ":1: service_timeout: want a time like",
		"service_memory_max: 1M":  ":1: service_memory_max: want at least 16M",
		"service: postgres":       `:1: unknown key "service"`,
		"services_required: most": ":1: services_required: want true or false",
	} {
		if _, err := Load(file(t, text+"\n")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

func TestNothingIsATimeToo(t *testing.T) {
	c, err := Load(file(t, "base_max_age: 0\ndownload_cache_max: 0\n"))
	if err != nil || c.BaseMaxAge != 0 || c.DownloadCacheMax.Bytes(1000) != 0 {
		t.Errorf("%+v, %v", c, err)
	}
	if c := Default(); c.BaseMaxAge != 24*time.Hour || c.DownloadCacheMax.Bytes(1) != 2<<30 {
		t.Errorf("defaults: %+v", c)
	}
}

func TestAmounts(t *testing.T) {
	for text, want := range map[string]uint64{
		"1024": 1024, "1K": 1 << 10, "3M": 3 << 20, "40%": 400, "100%": 1000, "infinity": math.MaxUint64, "0": 0,
	} {
		var a Amount
		if err := a.parse(&yaml.Node{Kind: yaml.ScalarNode, Value: text}); err != nil || a.Bytes(1000) != want {
			t.Errorf("%s: %d, %v; want %d", text, a.Bytes(1000), err, want)
		}
	}
	if got := (Amount{percent: 50}).Bytes(math.MaxUint64); got != math.MaxUint64/2 {
		t.Errorf("half of everything: %d", got)
	}
}

func TestProcessorsAreANumberOrAPercentage(t *testing.T) {
	for text, want := range map[string]float64{"2": 2, "1.5": 1.5, "150%": 1.5, "5%": 0.05} {
		if c, err := Load(file(t, "cpus: "+text+"\n")); err != nil || c.CPUs != want {
			t.Errorf("%s: %v, %v", text, c.CPUs, err)
		}
	}
	for _, text := range []string{"0", "-1", "NaN", "inf", "two", "[2]", "1e9", "'%'"} {
		if c, err := Load(file(t, "cpus: "+text+"\n")); err == nil || !strings.Contains(err.Error(), "want a number of processors") {
			t.Errorf("%s: %v, %v", text, c.CPUs, err)
		}
	}
}

func TestEveryKeyIsDocumentedAndHasAHome(t *testing.T) {
	for _, key := range Keys {
		if !strings.HasSuffix(key.Doc, ".") || !key.Host && !key.Image {
			t.Errorf("%+v", key)
		}
	}
}

var update = flag.Bool("update", false, "write the tables to docs/configuration.md")

func TestThePageOfTheConfigurationHasTheTablesOfKeys(t *testing.T) {
	const (
		page = "../../docs/configuration.md"
		mark = "<!-- go test ./runner/config -update writes what follows -->\n"
	)
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	head, tables, found := strings.Cut(string(data), mark)
	if !found {
		t.Fatalf("%s: there is no line %q", page, mark)
	}
	switch want := Tables(); {
	case *update:
		if err := os.WriteFile(page, []byte(head+mark+want), 0o644); err != nil {
			t.Fatal(err)
		}
	case tables != want:
		t.Errorf("%s differs from the table of keys; go test ./runner/config -update writes it", page)
	}
}

func TestEachVariableThatADocumentNamesIsASetting(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatal(pages, err)
	}
	for _, page := range append(pages, "../../README.md", "../../CHANGELOG.md", "../../SECURITY.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range regexp.MustCompile(VariablePrefix+"([a-z_]+)").FindAllStringSubmatch(string(text), -1) {
			if !slices.ContainsFunc(Keys, func(k Key) bool { return k.Image && k.Name == found[1] }) {
				t.Errorf("%s: %s is not a setting of an image", page, found[0])
			}
		}
	}
}

func TestEachSectionOfThePageBeginsWithAKey(t *testing.T) {
	for name := range sections {
		if !slices.ContainsFunc(Keys, func(k Key) bool { return k.Name == name }) {
			t.Errorf("%s is not a key", name)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("backend: btrfs\n")
	f.Add("memory_max: 40%\nenvironment: {a: b}\n")
	f.Add("a: &a [*a]\n")
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "c")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if c, err := Load(path); err == nil && (!filepath.IsAbs(c.StateDir) || c.BootTimeout < time.Second) {
			t.Errorf("%+v from %q", c, text)
		}
	})
}

func TestWhatAnImageMayHaveOfTheHost(t *testing.T) {
	var vars map[string]yaml.Node
	text := `nspawn_runner_devices: [/dev/kvm, /dev//net/tun]
nspawn_runner_binds: [/srv/a, /srv/b:/opt/b, /srv/c/:rw, "/srv/d:/opt/d/../e:rw", /srv/f:/f:ro]
nspawn_runner_shell: /usr/bin/zsh
nspawn_runner_max_age: 7d
nspawn_runner_test: |
  one
  two
`
	if err := yaml.Unmarshal([]byte(text), &vars); err != nil {
		t.Fatal(err)
	}
	c, err := Default().ForImage("sid.yaml", vars)
	if err != nil {
		t.Fatal(err)
	}
	binds := []Bind{{"/srv/a", "/srv/a", false}, {"/srv/b", "/opt/b", false}, {"/srv/c", "/srv/c", true}, {"/srv/d", "/opt/e", true}, {"/srv/f", "/f", false}}
	if !slices.Equal(c.Devices, []string{"/dev/kvm", "/dev/net/tun"}) || !slices.Equal(c.Binds, binds) ||
		c.Shell != "/usr/bin/zsh" || c.MaxAge != 7*24*time.Hour || c.Test != "one\ntwo\n" {
		t.Errorf("%+v", c)
	}
	if c := Default(); c.Shell != "/bin/bash" || c.MaxAge != 0 {
		t.Errorf("%+v", c)
	}
}

func TestMistakesInAPlaybookAreNamedWithTheirLine(t *testing.T) {
	for text, want := range map[string]string{
		"devices: /dev/kvm":                          ":1: nspawn_runner_devices: want a list",
		"devices:\n- /dev/kvm\n- /dev/../etc/shadow": `:3: nspawn_runner_devices: "/dev/../etc/shadow": want a device below /dev`,
		"devices: [kvm]":                             "want a device below /dev",
		"devices: [{a: b}]":                          ":1: nspawn_runner_devices: want text that is not empty",
		"binds:\n- /srv\n-\n  srv":                   `:4: nspawn_runner_binds: "srv": "srv": want an absolute path`,
		"binds: [/srv:opt]":                          `"opt": want an absolute path`,
		"binds: [/srv:/opt:/usr]":                    "want FROM, FROM:TO",
		"binds: [/srv:/opt:rx]":                      "want FROM, FROM:TO",
		"binds: [/:/opt]":                            "not all of the host",
		"binds: [/srv:/]":                            "nothing may be put over / of",
		"binds: [/srv:/x/..]":                        "nothing may be put over / of",
		"binds: [/srv:/proc/1]":                      "nothing may be put over /proc/1 of",
		"binds: [/srv:/run]":                         "nothing may be put over /run of",
		"binds: [/srv:/etc:rw]":                      "nothing may be put over /etc of",
		"binds: [/dev/kvm:/opt/kvm]":                 "a device is for nspawn_runner_devices",
		"binds: [/a:/opt, /b:/opt/]":                 "another one has the same place",
		"binds: ['']":                                "want text that is not empty",
		"shell: bash":                                "want an absolute path",
		"max_age: 7dd":                               "want a time like 90s, 5m or 7d",
		"max_age: -1d":                               "want a time like",
		"max_age: 0d":                                "want a time like",
		"test: []":                                   "want text that is not empty",
		"device: [/dev/kvm]":                         `unknown key "nspawn_runner_device", did you mean nspawn_runner_devices?`,
	} {
		var vars map[string]yaml.Node
		if err := yaml.Unmarshal([]byte("nspawn_runner_"+text), &vars); err != nil {
			t.Fatal(err)
		}
		_, err := Default().ForImage("sid.yaml", vars)
		if err == nil || !strings.HasPrefix(err.Error(), "playbook sid.yaml:") || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestASettingMustBeLiteral(t *testing.T) {
	for text, want := range map[string]string{
		"nspawn_runner_chroot_suite: '{{ suite }}'":                 "playbook sid.yaml:1: nspawn_runner_chroot_suite: want the value itself, not a template",
		"nspawn_runner_chroot_suite: {{ suite }}":                   "playbook sid.yaml:1: nspawn_runner_chroot_suite: want the value itself, not a template",
		"nspawn_runner_include:\n- less\n- '{{ more }}'":            "playbook sid.yaml:3: nspawn_runner_include: want the value itself",
		"nspawn_runner_keyring: /usr/share/{% if x %}y{% endif %}":  "want the value itself",
		"nspawn_runner_test: docker inspect -f '{{ .State }}' mine": "",
	} {
		var vars map[string]yaml.Node
		if err := yaml.Unmarshal([]byte(text), &vars); err != nil {
			t.Fatal(err)
		}
		_, err := Default().ForImage("sid.yaml", vars)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestImagesOfRegistriesAreRead(t *testing.T) {
	c, err := Load(file(t, "oci_images: ['postgres:*', registry.example.org/team/*]\noci_registry: registry.example.org:5000\noci_mirror: '[::1]:5000/group/proxy'\noci_insecure: [mirror.example.org]\noci_image_max: 2G\noci_cache_max: 0\n"))
	if err != nil || strings.Join(c.OCIImages, " ") != "postgres:* registry.example.org/team/*" || c.OCIRegistry != "registry.example.org:5000" || c.OCIMirror != "[::1]:5000/group/proxy" ||
		strings.Join(c.OCIInsecure, " ") != "mirror.example.org" || c.OCIImageMax.Bytes(0) != 2<<30 || c.OCICacheMax.Bytes(0) != 0 {
		t.Errorf("%+v, %v", c, err)
	}
	c, err = Load(file(t, "oci_registry: Registry.Example.org\noci_mirror: Mirror.Example.org/group\noci_insecure: [Mirror.Example.org]\n"))
	if err != nil || c.OCIRegistry != "registry.example.org" || c.OCIMirror != "mirror.example.org/group" || c.OCIInsecure[0] != "mirror.example.org" {
		t.Errorf("registries in upper case: %+v, %v", c, err)
	}
	if c := Default(); c.OCIImages != nil || c.OCIImageMax.Bytes(0) != 10<<30 || c.OCICacheMax.Bytes(1000) != 100 {
		t.Errorf("by default: %+v", c)
	}
	for text, want := range map[string]string{
		"oci_images: https://registry.example.org/x": "oci_images: \"https://registry.example.org/x\" is not the name of an image",
		"oci_images: {a: b}":                         "oci_images: want a list of words",
		"oci_registry: https://registry.example.org": "oci_registry: want a registry as HOST or HOST:PORT",
		"oci_mirror: registry.example.org/../x":      "oci_mirror: want a registry as HOST, HOST:PORT or HOST/PATH",
		"oci_insecure: ['*']":                        "oci_insecure: \"*\" is not a valid name",
		"oci_image_max: infinity":                    "oci_image_max: want an amount",
		"oci_image_max: 1K":                          "oci_image_max: want at least 1M",
	} {
		if _, err := Load(file(t, text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
