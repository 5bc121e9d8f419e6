package runner

import (
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mayImport is the direction of the house: what each package may import of
// this module. A package that is not listed here has no home.
var mayImport = map[string]string{
	"runner/image/downloads": "",
	"runner/image/box":       "runner/apparmor runner/host runner/seccomp",
	"runner/image/build":     "runner/fault runner/image/box runner/image/downloads runner/size runner/storage",
	"runner/image/debian":    "runner/fault runner/host runner/image/box runner/image/build runner/image/downloads runner/lock runner/storage",
	"runner/image/ansible":   "runner/image/box runner/image/build runner/printable",
	"runner/image":           "runner/fault runner/host runner/image/ansible runner/image/box runner/image/build runner/image/debian runner/image/downloads runner/leftover runner/lock runner/size runner/spelling runner/storage",

	"runner/gitlab":        "",
	"runner/failure":       "",
	"runner/journal":       "runner/printable",
	"runner/metrics":       "runner/failure runner/fault runner/lock",
	"runner/pattern":       "",
	"runner/spelling":      "",
	"runner/config":        "runner/gitlab runner/network runner/pattern runner/spelling runner/storage",
	"runner/apparmor":      "",
	"runner/fault":         "",
	"runner/lock":          "",
	"runner/leftover":      "",
	"runner/host":          "",
	"runner/printable":     "",
	"runner/guard":         "",
	"runner/size":          "",
	"runner/limits":        "runner/host runner/printable runner/size",
	"runner/network":       "runner/apparmor runner/fault runner/host runner/limits runner/printable",
	"runner/packages":      "",
	"runner/seccomp":       "",
	"runner/storage":       "runner/fault runner/seccomp runner/size",
	"runner/systemd":       "runner/fault runner/host",
	"runner/cache":         "runner/fault runner/leftover runner/lock runner/size runner/storage",
	"runner/machine":       "runner/apparmor runner/failure runner/fault runner/guard runner/host runner/journal runner/leftover runner/limits runner/lock runner/network runner/printable runner/seccomp runner/starter runner/storage runner/systemd",
	"runner/starter":       "",
	"runner/age":           "runner/config",
	"runner/statedir":      "",
	"runner/oci":           "runner/fault runner/leftover runner/lock runner/network runner/oci/unpack runner/pattern runner/printable runner/size runner/storage",
	"runner/oci/unpack":    "runner/printable runner/seccomp",
	"runner/job":           "runner/age runner/cache runner/config runner/failure runner/fault runner/gitlab runner/host runner/image runner/image/box runner/journal runner/limits runner/machine runner/metrics runner/network runner/oci runner/printable runner/size runner/starter runner/statedir runner/storage runner/systemd",
	"runner/doctor":        "runner/age runner/apparmor runner/config runner/gitlab runner/host runner/image runner/job runner/leftover runner/machine runner/network runner/packages runner/printable runner/size runner/statedir runner/storage runner/systemd",
	"runner":               "runner/age runner/cache runner/config runner/doctor runner/fault runner/gitlab runner/host runner/image runner/image/debian runner/job runner/leftover runner/limits runner/machine runner/metrics runner/oci runner/statedir runner/storage",
	"packaging":            "runner runner/config runner/host runner/packages",
	"cmd/nspawn-runner":    "packaging packaging/texts runner runner/age runner/doctor runner/fault runner/gitlab runner/host runner/image runner/job runner/limits runner/machine runner/oci runner/oci/unpack runner/printable runner/size runner/starter runner/systemd",
	"packaging/texts":      "packaging runner/config runner/doctor",
	"magefiles":            "packaging runner runner/config runner/packages test/suite test/demo test/self",
	"test/gitlab":          "",
	"test/gitlab/simulate": "test/gitlab",
	"test/harness":         "runner/host runner/lock",
	"test/debian":          "",
	"test/integration":     "runner/machine runner/network runner/starter runner/storage test/debian test/gitlab",
	"test/installed":       "test/harness",
	"test/bench":           "test/gitlab",
	"test/suite":           "packaging test/debian test/harness",
	"test/demo":            "test/play",
	"test/play":            "runner/host runner/packages test/harness test/suite",
	"test/self":            "test/harness test/play",
}

// tags are the sets of build tags with which anything of this module is built.
var tags = []string{"", "mage", "faults", "generate"}

func TestPackagesImportInOneDirection(t *testing.T) {
	imports := allImports(t)
	for _, pkg := range slices.Sorted(maps.Keys(imports)) {
		allowed, known := mayImport[pkg]
		if !known {
			t.Errorf("package %s is new: say in mayImport what it may import", pkg)
			continue
		}
		for imported := range imports[pkg] {
			if !slices.Contains(strings.Fields(allowed), imported) {
				t.Errorf("package %s must not import %s", pkg, imported)
			}
		}
	}
	for pkg, allowed := range mayImport {
		if imports[pkg] == nil {
			t.Errorf("there is no package %s: remove it from mayImport", pkg)
		}
		for _, may := range strings.Fields(allowed) {
			if !imports[pkg][may] {
				t.Errorf("package %s does not import %s: remove the permission from mayImport", pkg, may)
			}
		}
	}
}

// allImports are the packages of this module, and what they and their tests import of it,
// with any build tag.
func allImports(t *testing.T) map[string]map[string]bool {
	t.Helper()
	const format = `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}{{range .TestImports}} {{.}}{{end}}{{range .XTestImports}} {{.}}{{end}}`
	all := map[string]map[string]bool{}
	for _, set := range tags {
		out, err := exec.Command("go", "list", "-tags="+set, "-f", format, "nspawn-runner/...").CombinedOutput()
		if err != nil {
			t.Fatalf("go list -tags=%s: %v: %s", set, err, out)
		}
		for line := range strings.Lines(string(out)) {
			words := strings.Fields(line)
			pkg := strings.TrimPrefix(words[0], "nspawn-runner/")
			if all[pkg] == nil {
				all[pkg] = map[string]bool{}
			}
			for _, imported := range words[1:] {
				if ours, is := strings.CutPrefix(imported, "nspawn-runner/"); is && ours != pkg {
					all[pkg][ours] = true
				}
			}
		}
	}
	return all
}

func TestEachBuildTagIsLookedAt(t *testing.T) {
	err := filepath.WalkDir("..", func(path string, _ fs.DirEntry, err error) error {
		// A mage at work has its main program there for a moment, which is not of the module.
		if filepath.Base(path) == "mage_output_file.go" {
			return nil
		}
		if err != nil || filepath.Ext(path) != ".go" {
			return err
		}
		source, err := os.ReadFile(path)
		for line := range strings.Lines(string(source)) {
			if tag, is := strings.CutPrefix(line, "//go:build "); is && !slices.Contains(tags, strings.TrimSpace(tag)) {
				t.Errorf("%s: tags lacks %q", path, tag)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
