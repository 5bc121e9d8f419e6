package machine

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"nspawn-runner/runner/printable"
	"nspawn-runner/runner/systemd"
)

// Script is a script to be executed in a machine.
type Script struct {
	// Source is read to its end before the script starts.
	Source io.Reader
	// Shell executes it: a path in the machine, "" for the shell of the record.
	Shell string
	// Label names the script for people who look into the machine.
	Label string
	// Stdout and Stderr receive its output as it comes.
	Stdout, Stderr io.Writer
	// Role is that of the job's machine in which it is executed, "" for Main.
	Role Role
	// Alone says that gitlab-runner executes its scripts one after the other. So a script that still
	// runs was left by a driver that was killed, and is stopped.
	Alone bool

	environment map[string]string // that of the record
}

// wrapper executes the script's shell, $0. It sets the variables in those lines of the file $1 that match
// $2, and then the variables in its other arguments. Variables come from the unit, the file, the arguments
// and the script; later ones override earlier ones.
//
// EnvironmentFile= of systemd is no replacement: it does not support lines with "export", it overrides all
// other variables, and it reads a fifo in the machine's first process, which then waits for a writer.
//
// The script is the standard input of the wrapper. The shell gets it as another descriptor, because a
// command in the script that reads its standard input would read the rest of the script. The wrapper reads
// the last byte of the script: see executed. The shell's descriptor is shared with no other process.
const wrapper = `if [ -f "$1" ]; then
	while read -r || [ "$REPLY" ]; do
		[[ $REPLY =~ $2 ]] && export -- "${BASH_REMATCH[2]}=${BASH_REMATCH[4]}${BASH_REMATCH[5]}${BASH_REMATCH[6]}"
	done <"$1"
fi 2>/dev/null
shift 2
[ $# = 0 ] || export -- "$@" 2>/dev/null
command -v "$0" >/dev/null || exit 127; read -r; exec "$0" /dev/fd/3 3</dev/stdin </dev/null`

const (
	// variables is the file of Debian with variables for all logins.
	variables = "/etc/environment"
	// variable matches a line of it, as pam_env(8) reads it: NAME=VALUE, maybe after "export", maybe
	// in quotes, and maybe with a comment after a #.
	variable = `^[[:blank:]]*(export[[:blank:]]+)?([A-Za-z_][A-Za-z0-9_]*)=` +
		`("([^"]*)"|'([^']*)'|([^"'#[:blank:]]([^#]*[^#[:blank:]])?)?)[[:blank:]]*(#.*)?$`
)

// command returns the command line that executes a script.
func (s Script) command() []string {
	args := []string{"/bin/bash", "-c", wrapper, s.Shell, variables, variable}
	for _, name := range slices.Sorted(maps.Keys(s.environment)) {
		args = append(args, name+"="+s.environment[name])
	}
	return args
}

// farewell comes before the first line of a script. It closes descriptor 3, so that programs which the
// shell starts do not inherit the script, and with it the job's secrets. The shell has opened the script
// again by then.
const farewell = "exec 3<&-; "

// farewells are the shells that understand farewell. Other programs get the script without it.
var farewells = []string{"sh", "bash", "dash", "ash", "ksh", "mksh", "yash", "zsh"}

// withFarewell returns the script as its shell is to read it.
func withFarewell(source io.Reader, shell string) io.Reader {
	if !slices.Contains(farewells, path.Base(shell)) {
		return source
	}
	return io.MultiReader(strings.NewReader(farewell), source)
}

// unitPrefix is the prefix of the units of scripts in a machine. No job uses it by accident.
const unitPrefix = "nspawn-runner-script-"

func (s Store) scriptProperties(script Script, body *scriptBody, output *streams) []systemd.Property {
	set := systemd.Set
	return []systemd.Property{
		set("Description", "CI job: "+printable.Line(script.Label)),
		systemd.ExecStart(script.command()...),
		set("Type", "exec"),
		set("User", "root"),
		set("Environment", []string{
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"HOME=/root", "USER=root", "LOGNAME=root", "SHELL=" + script.Shell,
			"DEBIAN_FRONTEND=noninteractive", // debconf(7): without it, each apt-get install complains that no one can answer
		}),
		set("StandardInputFileDescriptor", dbus.UnixFD(body.file.Fd())),
		set("StandardOutputFileDescriptor", dbus.UnixFD(output.stdout.inside.Fd())),
		set("StandardErrorFileDescriptor", dbus.UnixFD(output.stderr.inside.Fd())),
		set("IgnoreSIGPIPE", false),
		// So a job that isolates another target goes on.
		set("IgnoreOnIsolate", true),
		// Only the limits of the machine count.
		set("TasksMax", ^uint64(0)),
		set("OOMPolicy", "continue"),
		set("TimeoutStopUSec", uint64(5*time.Second/time.Microsecond)),
		// systemd keeps the unit until this program has asked for its result.
		set("CollectMode", "inactive-or-failed"),
		set("AddRef", true),
	}
}

// scriptBody is a script in memory that the machine can read and no process can change. Its file position
// is at the last byte.
type scriptBody struct {
	file *os.File
	size int64
}

func sealed(source io.Reader) (*scriptBody, error) {
	fd, err := unix.MemfdCreate("script", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	body := &scriptBody{file: os.NewFile(uintptr(fd), "script")}
	if err := body.fill(source); err != nil {
		body.Close()
		return nil, err
	}
	return body, nil
}

func (b *scriptBody) fill(source io.Reader) (err error) {
	if b.size, err = io.Copy(b.file, source); err != nil {
		return err
	}
	if _, err := b.file.Seek(max(0, b.size-1), io.SeekStart); err != nil {
		return err
	}
	seals := unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(b.file.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	return nil
}

// executed says whether the machine executed the wrapper, and the wrapper found the shell. The exit status
// does not say this: systemd's 203 for a failed execve can also be that of the script. The wrapper shares
// the file position with this process, and moves it to the end. The shell opens the script again.
func (b *scriptBody) executed() bool {
	position, err := b.file.Seek(0, io.SeekCurrent)
	return err == nil && position == b.size
}

// checkExecuted returns an error if a script was not executed. exit is the end of its unit.
func (b *scriptBody) checkExecuted(exit systemd.Exit, shell string) error {
	switch {
	case b.executed():
		return nil
	case exit.Status == 127: // from the wrapper
		return fmt.Errorf("the machine could not execute the script: is there a shell %s in it?", printable.Line(shell))
	}
	return fmt.Errorf("the machine could not execute the script (%s, status %d)", printable.Line(exit.Result), exit.Status)
}

// Close forgets the script.
func (b *scriptBody) Close() error { return b.file.Close() }
