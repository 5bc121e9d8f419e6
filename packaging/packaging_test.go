package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestUnitsCallTheProgramWhereItLies(t *testing.T) {
	for _, layout := range []Layout{Local, {Programs: "/opt/x/bin"}} {
		dir := filepath.Join(t.TempDir(), "units")
		if err := layout.WriteUnits(dir); err != nil {
			t.Fatal(err)
		}
		written, err := os.ReadDir(dir)
		if err != nil || len(written) != 4 {
			t.Errorf("%v, %v", written, err)
		}
		service, err := os.ReadFile(filepath.Join(dir, "nspawn-runner-maintenance.service"))
		if err != nil || !strings.Contains(string(service), "\nExecStart="+layout.Program()+" chroot-maintenance ") || strings.Contains(string(service), "@") {
			t.Errorf("%v: %s", err, service)
		}
	}
}

func TestTheProgramThatIsBuiltSaysWhatItIs(t *testing.T) {
	program, err := Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	revision := ""
	if out, err := exec.Command("git", "rev-parse", "HEAD").Output(); err == nil {
		revision = ", revision " + string(out[:12])
	}
	for _, args := range [][]string{{"version"}, {"--version"}} {
		out, err := exec.Command(program, args...).CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), "nspawn-runner 0.") || !strings.Contains(string(out), revision) || !strings.Contains(string(out), ", go1.") || strings.Count(string(out), "\n") != 1 {
			t.Errorf("%q: %v: %s", args, err, out)
		}
	}
	if out, err := exec.Command("ldd", program).CombinedOutput(); err == nil {
		t.Errorf("it is not static: %s", out)
	}
}
