package image

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nspawn-runner/runner/image/debian"
)

// withSources has the fake bootstrap write a sources.list as mmdebstrap does, and run
// its hook.
const withSources = `
for mirror; do :; done
case $mirror in http://*) ;; *) mirror=http://chosen.example/debian ;; esac
echo "deb [signed-by=\"/a key\"] $mirror $SUITE main contrib" > "$root/etc/apt/sources.list"
for a; do case $a in --setup-hook=*) sh -c "${a#*=}" exec "$root" ;; esac; done`

func TestAnImageOfAMirrorGetsTheCorrectionsThatAreThere(t *testing.T) {
	const mirror, beside, line = "http://mirror.example/debian", "http://mirror.example/debian-security", `deb [signed-by="/a key"] `
	for name, test := range map[string]struct {
		bootstrap debian.Bootstrap
		there     string // files of suites
		want      string // further lines of sources.list: mirror and suite
		notes     []string
		err       string
		asks      bool
	}{
		"as Debian has it": {
			there: mirror + "/dists/bookworm-updates/InRelease " + beside + "/dists/bookworm-security/InRelease", asks: true,
			want: mirror + " bookworm-updates," + beside + " bookworm-security",
		},
		"as Ubuntu has it": {
			there: mirror + "/dists/bookworm-updates/InRelease " + mirror + "/dists/bookworm-security/Release", asks: true,
			want: mirror + " bookworm-updates," + mirror + " bookworm-security",
		},
		"a snapshot": {
			bootstrap: debian.Bootstrap{Mirror: "http://s.example/archive/debian/20260101T000000Z/", NoUpdates: true}, asks: true,
			there: "http://s.example/archive/debian-security/20260101T000000Z/dists/bookworm-security/Release",
			want:  "http://s.example/archive/debian-security/20260101T000000Z/ bookworm-security",
		},
		"somewhere else": {
			bootstrap: debian.Bootstrap{Security: "http://other.example/x", NoUpdates: true}, asks: true,
			there: "http://other.example/x/dists/bookworm-security/InRelease " + beside + "/dists/bookworm-security/InRelease",
			want:  "http://other.example/x bookworm-security",
		},
		"not where it should be": {
			bootstrap: debian.Bootstrap{Security: "http://other.example/x"}, asks: true,
			there: beside + "/dists/bookworm-security/InRelease",
			err:   "nspawn_runner_security_mirror: there is no bookworm-security at http://other.example/x",
		},
		"nowhere": {asks: true, notes: []string{
			"warning: there is no bookworm-updates at " + mirror + ", so the image goes without (nspawn_runner_updates)",
			"warning: there is no bookworm-security at " + mirror + " or " + beside + ", so the image goes without (nspawn_runner_security_mirror)",
		}},
		"a mirror that does not answer": {asks: true, there: "down",
			err: "look for bookworm-updates at " + mirror + ": exit status 100: E: Failed to fetch " + mirror + "/dists/bookworm-updates/InRelease  Could not connect to mirror.example"},
		"not wanted":               {bootstrap: debian.Bootstrap{Security: debian.NoSecurity, NoUpdates: true}, there: "down"},
		"a rolling suite":          {bootstrap: debian.Bootstrap{Suite: "sid"}, there: "down"},
		"the mirror of mmdebstrap": {bootstrap: debian.Bootstrap{Mirror: "-"}, there: "down"},
	} {
		t.Run(name, func(t *testing.T) {
			s, calls := fakeStore(t)
			var notes []string
			s.Progress = told(&notes)
			o := test.bootstrap
			switch o.Mirror {
			case "":
				o.Mirror = mirror
			case "-":
				o.Mirror = ""
			}
			if o.Suite == "" {
				o.Suite = "bookworm"
			}
			t.Setenv("SUITE", o.Suite)
			t.Setenv("FAKE_BOOTSTRAP", withSources)
			t.Setenv("FAKE_MIRRORS", test.there)
			generation, err := s.Create(t.Context(), "image", CreateOptions{Bootstrap: o})
			if asked := strings.Contains(read(t, calls), "apt-helper "); asked != test.asks {
				t.Errorf("asked: %v", asked)
			}
			if test.err != "" || err != nil {
				if err == nil || !strings.Contains(err.Error(), test.err) || test.err == "" {
					t.Errorf("%v; want %s", err, test.err)
				}
				return
			}
			_, further, _ := strings.Cut(read(t, filepath.Join(generation.Path, "etc/apt/sources.list")), "\n")
			want := ""
			for _, archive := range strings.Split(test.want, ",") {
				if archive != "" {
					want += line + archive + " main contrib\n"
				}
			}
			if further != want {
				t.Errorf("sources.list has\n%s, not\n%s", further, want)
			}
			for _, note := range test.notes {
				if !strings.Contains(strings.Join(notes, "\n"), note) {
					t.Errorf("said %q, not %s", notes, note)
				}
			}
			if said := strings.Contains(strings.Join(notes, "\n"), "warning"); said != (test.notes != nil) {
				t.Errorf("said %q", notes)
			}
		})
	}
}

func TestATreeOfDebootstrapGetsTheCorrectionsToo(t *testing.T) {
	s, calls := fakeStore(t)
	bin, _, _ := strings.Cut(os.Getenv("PATH"), ":")
	if err := os.Rename(filepath.Join(bin, "mmdebstrap"), filepath.Join(bin, "debootstrap")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SUITE", "bookworm")
	t.Setenv("FAKE_BOOTSTRAP", withSources)
	for name, mirror := range map[string]string{"given": "http://mirror.example/debian", "its-own": ""} {
		at := mirror
		if at == "" {
			at = "http://chosen.example/debian"
		}
		os.Remove(calls)
		t.Setenv("FAKE_MIRRORS", at+"-security/dists/bookworm-security/InRelease")
		generation, err := s.Create(t.Context(), name, CreateOptions{Bootstrap: debian.Bootstrap{Suite: "bookworm", Program: "debootstrap", Mirror: mirror}})
		if err != nil {
			t.Fatal(err)
		}
		want := "deb [signed-by=\"/a key\"] " + at + " bookworm main contrib\ndeb [signed-by=\"/a key\"] " + at + "-security bookworm-security main contrib\n"
		if got := read(t, filepath.Join(generation.Path, "etc/apt/sources.list")); got != want {
			t.Errorf("%s: sources.list is\n%s, not\n%s", name, got, want)
		}
		if got := read(t, calls); !strings.Contains(got, "apt-get update\napt-get --yes --no-install-recommends dist-upgrade\napt-get clean\n") {
			t.Errorf("%s: called %s", name, got)
		}
		if exists(filepath.Join(generation.Path, "etc/resolv.conf")) || exists(filepath.Join(generation.Path, "usr/sbin/policy-rc.d")) {
			t.Errorf("%s: what was lent stays", name)
		}
	}
	os.Remove(calls)
	t.Setenv("FAKE_MIRRORS", "")
	if _, err := s.Create(t.Context(), "none", CreateOptions{Bootstrap: debian.Bootstrap{Suite: "bookworm", Program: "debootstrap"}}); err != nil || strings.Contains(read(t, calls), "apt-get") {
		t.Errorf("nothing to upgrade to: %v, called %s", err, read(t, calls))
	}
}

func TestCorrectionsAreOfAMirrorThatIsGiven(t *testing.T) {
	s, calls := fakeStore(t)
	for _, o := range []debian.Bootstrap{{Security: "http://x/y"}, {Security: debian.NoSecurity}, {NoUpdates: true}} {
		if _, err := s.Create(t.Context(), "sid", CreateOptions{Bootstrap: o}); err == nil || !strings.Contains(err.Error(), "need nspawn_runner_mirror") || exists(calls) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestAMirrorWhoseTimeIsOverIsTakenWhereTheImageSaysSo(t *testing.T) {
	s, calls := fakeStore(t)
	t.Setenv("FAKE_BOOTSTRAP", `case "$*" in *Check-Valid-Until*) ;; *) echo "E: Release file for http://x/dists/sid/InRelease is expired (invalid since 3d 1h 2min 3s). Updates for this repository will not be applied."; exit 25 ;; esac`)
	_, err := s.Create(t.Context(), "sid", CreateOptions{})
	if err == nil || !strings.Contains(err.Error(), "is expired (invalid since 3d") || !strings.Contains(err.Error(), "nspawn_runner_check_valid_until: false") {
		t.Errorf("%v", err)
	}
	for _, config := range []string{"", `Acquire::Check-Valid-Until "false";`} {
		os.Remove(calls)
		t.Setenv("FAKE_APT_CONFIG", config)
		if _, err := s.Create(t.Context(), "image"+config[:min(1, len(config))], CreateOptions{Bootstrap: debian.Bootstrap{AnyAge: true}}); err != nil {
			t.Error(err)
		}
		if got := read(t, calls); strings.Count(got, `--aptopt=Acquire::Check-Valid-Until "false"`) != 1 {
			t.Errorf("called %s", got)
		}
	}
}
