package runner

import (
	"os/exec"
	"strings"
	"testing"
)

// mayImport is the direction of the house: what each package may import of
// this module. A package that is not listed here has no home.
var mayImport = map[string]string{
	"runner/gitlab":        "",
	"runner/spelling":      "",
	"runner/config":        "runner/spelling",
	"runner/fault":         "",
	"runner/lock":          "",
	"runner/seccomp":       "",
	"runner/storage":       "runner/fault runner/seccomp",
	"runner/systemd":       "runner/fault",
	"runner/cache":         "runner/fault runner/lock runner/storage",
	"runner/image":         "runner/fault runner/lock runner/seccomp runner/spelling runner/storage",
	"runner/machine":       "runner/fault runner/lock runner/seccomp runner/storage runner/systemd",
	"runner":               "runner/cache runner/config runner/fault runner/gitlab runner/image runner/machine runner/storage runner/systemd",
	"cmd/nspawn-runner":    "runner runner/gitlab runner/machine",
	"magefiles":            "runner test/suite test/demo test/self",
	"test/gitlab":          "",
	"test/gitlab/simulate": "test/gitlab",
	"test/harness":         "runner/lock",
	"test/debian":          "",
	"test/integration":     "test/debian test/gitlab",
	"test/bench":           "test/gitlab",
	"test/suite":           "test/debian test/harness",
	"test/demo":            "test/play",
	"test/play":            "test/harness test/suite",
	"test/self":            "test/harness test/play",
}

func TestPackagesImportInOneDirection(t *testing.T) {
	out, err := exec.Command("go", "list", "-tags=mage", "-f", "{{.ImportPath}} {{join .Imports \" \"}} {{join .TestImports \" \"}}", "nspawn-runner/...").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(strings.ReplaceAll(line, "nspawn-runner/", "./"))
		pkg := strings.TrimPrefix(words[0], "./")
		allowed, known := mayImport[pkg]
		if !known {
			t.Errorf("package %s is new: say in mayImport what it may import", pkg)
			continue
		}
		for _, imported := range words[1:] {
			imported, ours := strings.CutPrefix(imported, "./")
			if ours && !strings.Contains(" "+allowed+" ", " "+imported+" ") {
				t.Errorf("package %s must not import %s", pkg, imported)
			}
		}
	}
}
