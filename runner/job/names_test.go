package job

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nspawn-runner/runner/gitlab"
)

func called(names string) string {
	return "- hosts: all\n  vars:\n    nspawn_runner_aliases: " + names + "\n"
}

func TestANameMeansWhatTheFirstThatKnowsItSays(t *testing.T) {
	d, said := newDriver(t, `images:
  "debian:12": bookworm
  "sid": trixie
  "*/ci/*:sha-*": trixie
  "*/ci/*": bookworm
  "node:??": sid
`, map[string]string{
		"trixie":   called("[stable, '13', 'debian:12', registry.example/x/ci/y, bookworm]"),
		"bookworm": called("oldstable, registry.example/old"),
	})
	for written, want := range map[string]string{
		"bookworm":                            "bookworm",
		"debian:bookworm":                     "bookworm",
		"debian:12":                           "bookworm", // not trixie's alias
		"sid":                                 "trixie",   // not the image
		"debian:sid":                          "sid",      // another name than the one in images
		"stable":                              "trixie",
		"registry.example:5000/debian:stable": "trixie",
		"debian:13":                           "trixie",
		"registry.example/old":                "bookworm",
		"registry.example/x/ci/y":             "trixie", // an alias, before the pattern
		"registry.example/group/ci/base:sha-0a1b2": "trixie",
		"registry.example/ci/base:latest":          "bookworm",
		"registry.example/ci/base@sha256:0a1b":     "bookworm",
		"node:20":                                  "sid",
	} {
		if name, err := d.find(written); err != nil || name != want {
			t.Errorf("%s: %q, %v; want %s", written, name, err, want)
		}
	}
	if said.Len() > 0 {
		t.Errorf("said %q", said)
	}
}

func TestANameThatMeansNothingIsTheJobsFailureAndSaysWhatToDo(t *testing.T) {
	d, _ := newDriver(t, "images: {'debian:12': bookworm}\n", map[string]string{"sid": called("unstable")})
	const there = "there are: bookworm, sid, trixie"
	tasks := filepath.Join(d.Config.PlaybookDir, "tasks.yaml")
	if err := os.WriteFile(tasks, []byte("- apt: {name: less}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for written, want := range map[string]string{
		"ci/tasks":                 "image tasks: there is no such image, and " + tasks + " is not a playbook: nothing in its list is a play, which has hosts; there are: ",
		"debian:13":                "image 13: there is no such image; there are: sid, trixie, bookworm; the administrator can map debian:13 to one of them, with images in " + d.ConfigFile + " or nspawn_runner_aliases in a playbook",
		"other/debian:12":          "image 12: there is no such image; there are: ",
		"base:latest":              "image latest: there is no such image; there are: ",
		"base@sha256:0a1b":         "digests are not supported; use the image's name; " + there + "; the administrator can map base@sha256:0a1b to",
		"a:b:c:d":                  "too many colons; " + there,
		"":                         "the job names no image",
		"x\x1b[31m\n":              "control bytes; " + there,
		strings.Repeat("x", 999):   "longer than 64 bytes; " + there,
		strings.Repeat("x/", 9999): "the name of the image is longer than 1024 bytes",
	} {
		name, err := d.find(written)
		var failure *gitlab.BuildFailure
		if !errors.As(err, &failure) || failure.Code != 1 || !strings.Contains(err.Error(), want) {
			t.Errorf("%.30q: %q, %v; want %s", written, name, err, want)
		}
		if text := fmt.Sprint(err); len(text) > 1000 || strings.ContainsAny(text, "\x1b\n") {
			t.Errorf("%.30q: %q", written, text)
		}
	}
}

func TestADefaultIsForNamesThatMeanNothing(t *testing.T) {
	d, said := newDriver(t, "default_image: trixie\nimages: {'x/*': sid}\n", map[string]string{"tasks": "- apt: {name: less}\n"})
	for written, want := range map[string]string{
		"node:20": "trixie", "base@sha256:0a1b": "trixie", "": "trixie", "a\x1bb": "trixie", "bookworm": "bookworm", "x/y": "sid", "tasks": "trixie",
	} {
		said.Reset()
		if name, err := d.find(written); err != nil || name != want {
			t.Errorf("%q: %q, %v; want %s", written, name, err, want)
		}
		if told := strings.Contains(said.String(), "so the job gets trixie (default_image)"); told != (want == "trixie") || strings.Contains(said.String(), "\x1b") {
			t.Errorf("%q: said %q", written, said)
		}
	}
}

func TestAnAliasOfTwoImagesIsAnErrorThatNamesBothPlaybooks(t *testing.T) {
	d, _ := newDriver(t, "", map[string]string{"trixie": called("stable 13"), "bookworm": called("[stable, stable]"), "sid": called("[unstable, unstable]")})
	dir := d.Config.PlaybookDir
	_, err := d.find("debian:stable")
	var failure *gitlab.BuildFailure
	want := fmt.Sprintf("image stable: both %s/bookworm.yaml and %s/trixie.yaml have this name in nspawn_runner_aliases", dir, dir)
	if err == nil || errors.As(err, &failure) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v; want %s", err, want)
	}
	for written, want := range map[string]string{"debian:13": "trixie", "unstable": "sid"} {
		if name, err := d.find(written); err != nil || name != want {
			t.Errorf("%s: %q, %v", written, name, err)
		}
	}
}

func TestABrokenPlaybookIsOnlyInTheWayOfItsOwnAliases(t *testing.T) {
	d, said := newDriver(t, "images: {'x/*': sid}\n", map[string]string{
		"trixie": called("stable"),
		"broken": called("[a") + "x",
		"odd":    called("{a: b}"),
		"other":  called("other") + "    nspawn_runner_backend: nothing\n",
	})
	dir := d.Config.PlaybookDir
	if err := os.Symlink("nowhere", filepath.Join(dir, "gone.yaml")); err != nil {
		t.Fatal(err)
	}
	for written, want := range map[string]string{"bookworm": "bookworm", "stable": "trixie", "other": "other"} {
		if name, err := d.find(written); err != nil || name != want || said.Len() > 0 {
			t.Errorf("%s: %q, %v, said %q", written, name, err, said)
		}
	}
	_, err := d.find("debian:12")
	for _, want := range []string{"image 12: there is no such image", "aliases that cannot be read: playbook " + dir + "/broken.yaml:",
		"playbook " + dir + "/odd.yaml:3: nspawn_runner_aliases: want a list of words", "read playbook " + dir + "/gone.yaml: no such file"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %s", err, want)
		}
	}
	if name, err := d.find("x/y"); err != nil || name != "sid" || !strings.Contains(said.String(), "warning: aliases that cannot be read: playbook "+dir+"/broken.yaml:") {
		t.Errorf("by a pattern: %q, %v, said %q", name, err, said)
	}
}

func TestAConfigurationThatNamesNoImageIsNotTheJobsFailure(t *testing.T) {
	d, _ := newDriver(t, "default_image: nothing\nimages: {'debian:12': bokworm, 'x/*': triixie}\n", nil)
	for written, want := range map[string]string{
		"debian:12": "images in " + d.ConfigFile + ": for debian:12: image bokworm: there is no such image; there are: bookworm",
		"x/y":       `images ("x/*") in ` + d.ConfigFile + ": for x/y: image triixie: there is no such image; there are: trixie",
		"node:20":   "default_image in " + d.ConfigFile + ": for node:20: image nothing: there is no such image",
	} {
		var failure *gitlab.BuildFailure
		if _, err := d.find(written); err == nil || errors.As(err, &failure) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %s", written, err, want)
		}
	}
}

// BenchmarkFind is what a name costs each prepare, beside fifty playbooks.
func BenchmarkFind(b *testing.B) {
	tasks := strings.Repeat("    - name: install\n      ansible.builtin.apt: {name: [build-essential, devscripts], state: present}\n", 50)
	playbooks := map[string]string{}
	for i := range 50 {
		playbooks[fmt.Sprintf("image%d", i)] = "- hosts: all\n  vars: {nspawn_runner_chroot_suite: sid}\n  tasks:\n" + tasks
	}
	playbooks["trixie"] = called("stable")
	d, _ := newDriver(b, "images: {'debian:12': bookworm, 'x/*': sid}\n", playbooks)
	for _, written := range []string{"bookworm", "debian:12", "debian:stable", "x/y"} {
		b.Run(written, func(b *testing.B) {
			for b.Loop() {
				if _, err := d.find(written); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
