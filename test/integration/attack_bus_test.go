package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// A machine's bus belongs to the job: it can be replaced by a program that answers
// whatever it likes. A bus that says that a script has run, when it has not, is the
// system's failure, unless it takes the trouble to read the script, too ("cunning"):
// root in a machine can make its own job succeed, as it can by replacing bash. No
// bus may hang a stage, take the host's memory, or write to a terminal. Those that pass
// files do so to keep the driver in the kernel: with a file of a FUSE that does not
// answer, or with a socket that holds one, which to throw away is enough.
func TestAttacksByAMachinesBusAreHeld(t *testing.T) {
	h := onHost(t, "overlay").impatient(t)
	allowManyMachines(t)
	program, err := os.ReadFile(filepath.Join(os.Getenv("NSPAWN_RUNNER_TESTDATA"), "bus.py"))
	must(t, err)
	var wait sync.WaitGroup
	for _, kind := range []string{"garbage", "endless line", "slow", "giant", "many values", "rude", "deaf", "silent", "away", "malformed", "malformed header", "lying",
		"passing a file", "passing what was written", "passing what was written out of band"} {
		wait.Go(func() {
			name := "replace the bus by one that is " + kind
			id := h.prepared(t, "bookworm")
			h.replaceBus(t, id, string(program), kind)
			defer h.freeAfter(2*time.Minute, id)()
			took, peak, out, status := h.measured(t, "run", "--id", id, script(t, "echo executed"), "build_script")
			switch {
			case status != 2 || strings.Contains(out, "executed\n"):
				t.Errorf("got through: %s: exit %d: %.2000q", name, status, out)
			case took > 2*time.Minute:
				t.Errorf("got through: %s: it took %v", name, took)
			case kind == "silent" && !strings.Contains(out, "its D-Bus does not answer"):
				t.Errorf("%s: %s", name, out)
			case kind == "away" && !strings.Contains(out, "its D-Bus went away"):
				t.Errorf("%s: %s", name, out)
			case peak > 100<<20:
				t.Errorf("got through: %s: the driver took %d MiB", name, peak>>20)
			case hasControls(out):
				t.Errorf("got through: %s: %.2000q", name, out)
			default:
				held(name)
			}
		})
	}
	wait.Wait()
}

func TestABusThatPlaysItsWholePartDecidesOnItsOwnJobOnly(t *testing.T) {
	h := onHost(t, "overlay")
	program, err := os.ReadFile(filepath.Join(os.Getenv("NSPAWN_RUNNER_TESTDATA"), "bus.py"))
	must(t, err)
	id := h.prepared(t, "bookworm")
	h.replaceBus(t, id, string(program), "cunning")
	if c := h.run(t, id, "exit 3"); c.status != 0 {
		t.Errorf("SECURITY.md says too little: %+v", c)
	}
	if c := h.run(t, h.prepared(t, "bookworm"), "exit 3"); c.code != "3" {
		t.Errorf("another job: %+v", c)
	}
}

// A file system that never answers, on the way to the bus, must not hold the driver in
// the kernel. A FUSE is only for those in its machine's user namespace; an overlay asks
// it as who mounted it, whoever asks the overlay.
func TestAttacksByAFileSystemThatNeverAnswersAreHeld(t *testing.T) {
	h := onHost(t, "overlay")
	id := h.prepared(t, "bookworm")
	c := h.run(t, id, fuse(t)+`mkdir /hangs /empty && systemd-run -q --collect python3 /fuse.py /hangs LOOKUP
while [ ! -e /ready ]; do sleep 0.01; done; mount -t overlay -o lowerdir=/hangs:/empty none /run/dbus`)
	if c.status != 0 {
		t.Fatalf("%+v", c)
	}
	defer h.freeAfter(time.Minute, id)()
	took, _, out, status := h.measured(t, "run", "--id", id, script(t, "echo executed"), "build_script")
	if status != 2 || took > 30*time.Second || !strings.Contains(out, "not in a tmpfs") {
		gotThrough(t, "hide the bus in a file system that never answers", took, status, out)
	}
	held("hide the bus in a file system that never answers")
}

// freeAfter frees a driver that got stuck in the kernel: what holds it there goes with
// the machine. The function that it returns takes that back.
func (h *host) freeAfter(limit time.Duration, id string) (stop func() bool) {
	return time.AfterFunc(limit, func() { exec.Command(h.driver, "--config", h.config, "cleanup", "--id", id).Run() }).Stop
}

// fuse is a script that writes testdata/fuse.py to /fuse.py.
func fuse(t *testing.T) string {
	t.Helper()
	program, err := os.ReadFile(filepath.Join(os.Getenv("NSPAWN_RUNNER_TESTDATA"), "fuse.py"))
	must(t, err)
	return "cat > /fuse.py <<'EOF'\n" + string(program) + "EOF\n"
}

// hasControls says whether text could do more to a terminal than to fill it. A crash
// of Go's runtime indents with tabs.
func hasControls(text string) bool {
	return strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }) || !utf8.ValidString(text)
}

// replaceBus replaces the bus of a machine by a program.
func (h *host) replaceBus(t *testing.T, id, program, kind string) {
	t.Helper()
	c := h.run(t, id, fuse(t)+"cat > /bus.py <<'EOF'\n"+program+"EOF\nsystemd-run -q --collect python3 /bus.py '"+kind+"'; while [ ! -e /ready ]; do sleep 0.01; done")
	if c.status != 0 {
		t.Errorf("%s: %+v", kind, c)
	}
}

// measured calls the driver for a stage and says how long it took and how much
// memory, in bytes.
func (h *host) measured(t *testing.T, args ...string) (took time.Duration, peak int64, output string, status int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), h.driver, append([]string{"--config", h.config}, args...)...)
	cmd.Env = append(os.Environ(), "BUILD_FAILURE_EXIT_CODE=1", "SYSTEM_FAILURE_EXIT_CODE=2", "BUILD_EXIT_CODE_FILE="+filepath.Join(t.TempDir(), "code"))
	start := time.Now()
	out, _ := cmd.CombinedOutput()
	usage, _ := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return time.Since(start), usage.Maxrss << 10, string(out), cmd.ProcessState.ExitCode()
}
