package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"nspawn-runner/runner"
	"nspawn-runner/runner/config"
	"nspawn-runner/runner/packages"
)

// read is a file of the source.
func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile("../" + path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestThePackageIsOfTheReleaseOfTheProgram(t *testing.T) {
	head := entry.FindStringSubmatch(read(t, "debian/changelog"))
	if head == nil || head[1] != runner.Version {
		t.Errorf("debian/changelog begins with %q, the release is %s", head, runner.Version)
	}
	_, newest, _ := strings.Cut(read(t, "CHANGELOG.md"), "\n## ")
	if waits := strings.HasPrefix(newest, runner.Version+", not released yet\n"); waits != (head[2] == unreleased) {
		t.Errorf("CHANGELOG.md says that it is not released: %v; debian/changelog: %s", waits, head[2])
	}
}

func TestThePackageDependsOnWhatAHostNeeds(t *testing.T) {
	_, depends, _ := strings.Cut(read(t, "debian/control"), "\nDepends: ")
	depends, _, _ = strings.Cut(depends, "\nRecommends:")
	for _, p := range packages.Needed {
		if !regexp.MustCompile(`(^|\s)` + p.Name + `\b`).MatchString(depends) {
			t.Errorf("debian/control depends on %q, not on %s", depends, p.Name)
		}
	}
}

func TestTheDirectoriesOfThePackageAreThoseOfTheDefaults(t *testing.T) {
	settings := config.Default()
	for path, line := range map[string]string{
		"debian/nspawn-runner.tmpfiles": "d " + settings.StateDir + " 0700 root root -",
		"debian/nspawn-runner.postrm":   "state=" + settings.StateDir,
		"debian/nspawn-runner.dirs":     strings.TrimPrefix(settings.PlaybookDir, "/"),
	} {
		if !slices.Contains(strings.Split(read(t, path), "\n"), line) {
			t.Errorf("%s has no line %q", path, line)
		}
	}
}

func TestAPurgeSeesWhatIsMountedBelowADirectoryOfAnyName(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounts need root")
	}
	function := regexp.MustCompile(`(?ms)^mounts_below\(\) \{.*?^\}$`).FindString(read(t, "debian/nspawn-runner.postrm"))
	for _, name := range []string{"plain", "a.b", "a b", "a  b [1] *", "tab\there", `back\slash`} {
		dir := filepath.Join(t.TempDir(), name)
		for _, below := range []string{".cache", "machine", "../other/.cache"} {
			if err := os.MkdirAll(filepath.Join(dir, below), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		script := function + `
set -e
mount --make-rprivate /
mount -t tmpfs x "$1"
mkdir "$1/.cache" "$1/machine"
mount -t tmpfs x "$1/.cache"
mount -t tmpfs x "$1/../other/.cache"
[ -z "$(mounts_below "$1")" ] || echo "sees: $(mounts_below "$1")"
mount -t tmpfs x "$1/machine"
[ "$(mounts_below "$1" | wc -l)" = 1 ] || echo "sees not one"`
		cmd := exec.Command("sh", "-c", script, "sh", dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%q: %v: %s", name, err, out)
		}
	}
}
