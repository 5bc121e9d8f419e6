package integration

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// The attack suite: what a job, which is root in its machine, may try against the
// host, other jobs and this program. SECURITY.md says what is promised and names
// these tests. Each attempt has a name and is reported as held, or fails the test
// at once. What other tests prove already is not tried again.

// attempt is something a job tries.
type attempt struct {
	name string
	// script ends with 0 when it got through, and with 1 when it was refused.
	script string
	// control is where the same script does get through, which shows that it can.
	control control
}

type control int

const (
	onTheHost control = iota
	inAPrivilegedMachine
	inAnotherMachine
)

func held(name string) { fmt.Println("held: " + name) }

func gotThrough(t *testing.T, name string, how ...any) {
	t.Helper()
	t.Fatalf("got through: %s: %s", name, strings.TrimSpace(fmt.Sprintln(how...)))
}

// attacked is a machine that is attacked from, and where its attempts succeed.
type attacked struct {
	h *host
	// id is the attacker's machine, controls those of the controls; the host has none.
	id       string
	controls map[control]string
	// before is put before each script.
	before string
	// executes, if set, executes the attempts in the place of the driver.
	executes func(t *testing.T, script string) call
}

// execute executes an attempt's script.
func (a attacked) execute(t *testing.T, script string) call {
	t.Helper()
	if a.executes != nil {
		return a.executes(t, script)
	}
	return a.h.run(t, a.id, script)
}

// attempt executes an attempt and its control.
func (a attacked) attempt(t *testing.T, what attempt) {
	t.Helper()
	a.compare(t, what, a.before+syscalls+what.script)
}

// attemptContained does so as the root of a container in the machine, with a network, a
// proc and a sysfs of its own.
func (a attacked) attemptContained(t *testing.T, what attempt) {
	t.Helper()
	what.name += ", in a container"
	a.compare(t, what, "cat > /attempt <<'ATTEMPT'\n"+a.before+syscalls+what.script+"\nATTEMPT\n"+
		"unshare --user --map-root-user --net --pid --fork --mount --mount-proc bash -c 'mount -t sysfs sysfs /sys && touch /contained && bash /attempt'")
	if c := a.h.run(t, a.id, "rm /contained"); c.status != 0 {
		t.Fatalf("%s: the machine made no container that could try", what.name)
	}
}

// compare executes what an attempt comes to, and the control.
func (a attacked) compare(t *testing.T, what attempt, tried string) {
	t.Helper()
	text := a.before + syscalls + what.script
	wasRefused(t, what.name, a.execute(t, tried))
	var control call
	if id := a.controls[what.control]; id != "" {
		control = a.h.run(t, id, text)
	} else {
		control = scriptOnHost(t, text)
	}
	switch {
	case control.status == 0:
		held(what.name)
	case os.Getenv("NSPAWN_RUNNER_HOST") == "lab" && what.control == onTheHost && control.refused():
		// A lab lies in a container, which may hold it too.
		fmt.Printf("held, but by this lab as well: %s\n", what.name)
	default:
		t.Errorf("%s: was held, but so was its control, so this shows nothing: %+v", what.name, control)
	}
}

// wasRefused fails the test of an attempt that got through, or that could not be made.
func wasRefused(t *testing.T, name string, c call) {
	t.Helper()
	if c.status == 0 {
		gotThrough(t, name, c.stdout, c.stderr)
	}
	if !c.refused() {
		t.Errorf("%s: the machine could not try: %+v", name, c)
	}
}

// refused says whether a script was executed to its end and ended with 1. Another exit
// code tells of something else, such as a program (127) or a file that is missing (2 of
// grep's), which shows nothing.
func (c call) refused() bool {
	return c.status == 1 && c.code == "1" && !brokenScript.MatchString(c.stderr)
}

// brokenScript are messages of bash and python about a script that is wrong itself.
var brokenScript = regexp.MustCompile(`command not found|syntax error|SyntaxError|NameError|AttributeError|TypeError|ModuleNotFoundError`)

// scriptOnHost executes a script on the host, and returns its end as that of a stage.
func scriptOnHost(t *testing.T, text string) call {
	t.Helper()
	cmd := exec.Command("bash", script(t, text))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	c := call{}
	if err := cmd.Run(); err != nil {
		c.status, c.code = 1, strconv.Itoa(cmd.ProcessState.ExitCode())
	}
	c.stdout, c.stderr = stdout.String(), stderr.String()
	return c
}

// syscalls is a shell function: it ends with 0 unless the kernel says that a system
// call is not allowed, whatever else it says of its arguments.
const syscalls = `
syscall() { python3 - "$@" <<'END'
import ctypes, errno, platform, sys
numbers = {
    "x86_64": {"swapon": 167, "init_module": 175, "kexec_load": 246, "perf_event_open": 298, "bpf": 321, "syslog": 103, "quotactl": 179, "add_key": 248, "request_key": 249},
    "aarch64": {"swapon": 224, "init_module": 105, "kexec_load": 104, "perf_event_open": 241, "bpf": 280, "syslog": 116, "quotactl": 60, "add_key": 217, "request_key": 218},
}
libc = ctypes.CDLL(None, use_errno=True)
number = numbers[platform.machine()][sys.argv[1]]
result = libc.syscall(number, *[ctypes.c_long(int(a)) for a in sys.argv[2:]])
refused = result < 0 and ctypes.get_errno() in (errno.EPERM, errno.EACCES, errno.ENOSYS)
print(sys.argv[1:], result, errno.errorcode.get(ctypes.get_errno()))
sys.exit(refused)
END
}
`
