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
	// Shell executes it: a path in the machine, "" for the machine's own.
	Shell string
	// Label says what it is, for people who look into the machine.
	Label string
	// Stdout and Stderr receive its output as it comes.
	Stdout, Stderr io.Writer
	// Role is that of the job's machine in which it is executed, "" for Main.
	Role Role
	// Alone says that no other script may be running: gitlab-runner's come one
	// after the other. What a driver that was killed left running is stopped.
	Alone bool

	environment map[string]string // the machine's record has it
}

// wrapper executes the script's shell, $0, with the variables of the file $1, whose lines
// match $2, and those of its other arguments. They come in this order, and later ones win:
// what the unit says, the file, the arguments, and then what the script itself sets.
//
// It reads the file by itself, in place of systemd's EnvironmentFile=, since that does not
// know lines with "export", wins over all other variables, and reads a fifo in the
// machine's first process, which then waits for a writer.
//
// The script comes to it on stdin: left there, a command in it that reads stdin would eat
// the rest of the script. Before, it reads the last byte: see executed. The shell's
// descriptor is one that it shares with nobody.
const wrapper = `if [ -f "$1" ]; then
	while read -r || [ "$REPLY" ]; do
		[[ $REPLY =~ $2 ]] && export -- "${BASH_REMATCH[2]}=${BASH_REMATCH[4]}${BASH_REMATCH[5]}${BASH_REMATCH[6]}"
	done <"$1"
fi 2>/dev/null
shift 2
[ $# = 0 ] || export -- "$@" 2>/dev/null
command -v "$0" >/dev/null || exit 127; read -r; exec "$0" /dev/fd/3 3</dev/stdin </dev/null`

const (
	// variables is the file in which a Debian machine has variables for all logins.
	variables = "/etc/environment"
	// variable is a line of it, as pam_env(8) reads it: NAME=VALUE, perhaps after
	// "export", in quotes or without, and what follows a # is a comment.
	variable = `^[[:blank:]]*(export[[:blank:]]+)?([A-Za-z_][A-Za-z0-9_]*)=` +
		`("([^"]*)"|'([^']*)'|([^"'#[:blank:]]([^#]*[^#[:blank:]])?)?)[[:blank:]]*(#.*)?$`
)

// command is the command line that executes a script.
func (s Script) command() []string {
	args := []string{"/bin/bash", "-c", wrapper, s.Shell, variables, variable}
	for _, name := range slices.Sorted(maps.Keys(s.environment)) {
		args = append(args, name+"="+s.environment[name])
	}
	return args
}

// farewell comes before the first line of a script. By then its shell has opened the
// script anew; what else the shell starts is not to inherit the script, which holds the
// job's secrets, as its descriptor 3.
const farewell = "exec 3<&-; "

// farewells are the shells that understand it. Others take a path, and may be anything.
var farewells = []string{"sh", "bash", "dash", "ash", "ksh", "mksh", "yash", "zsh"}

// withFarewell is a script as its shell reads it.
func withFarewell(source io.Reader, shell string) io.Reader {
	if !slices.Contains(farewells, path.Base(shell)) {
		return source
	}
	return io.MultiReader(strings.NewReader(farewell), source)
}

// unitPrefix begins the names of scripts' units in a machine. A job does not take it
// for its own units by accident.
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
			"DEBIAN_FRONTEND=noninteractive", // debconf(7): nobody answers, and else each apt-get install complains of that
		}),
		set("StandardInputFileDescriptor", dbus.UnixFD(body.file.Fd())),
		set("StandardOutputFileDescriptor", dbus.UnixFD(output.stdout.inside.Fd())),
		set("StandardErrorFileDescriptor", dbus.UnixFD(output.stderr.inside.Fd())),
		set("IgnoreSIGPIPE", false),
		// A job may isolate another target, and goes on.
		set("IgnoreOnIsolate", true),
		// The machine's limits are meant to be the only ones.
		set("TasksMax", ^uint64(0)),
		set("OOMPolicy", "continue"),
		set("TimeoutStopUSec", uint64(5*time.Second/time.Microsecond)),
		// Keep what is known of the unit until it has been asked, then nothing.
		set("CollectMode", "inactive-or-failed"),
		set("AddRef", true),
	}
}

// scriptBody is a script in memory that the machine can read and nobody can
// change any more. The position in the file is at its last byte.
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

// executed says whether the machine executed the wrapper, and found the shell.
// An exit status cannot: systemd's word for a failed execve, 203, can also be
// the script's. But the wrapper shares its stdin with us, and with it the position,
// which it moves to the end; the shell opens the script anew.
func (b *scriptBody) executed() bool {
	position, err := b.file.Seek(0, io.SeekCurrent)
	return err == nil && position == b.size
}

// checkExecuted says why a script was not executed whose unit ended so.
func (b *scriptBody) checkExecuted(exit systemd.Exit, shell string) error {
	switch {
	case b.executed():
		return nil
	case exit.Status == 127: // the wrapper's
		return fmt.Errorf("the machine could not execute the script: is there a shell %s in it?", printable.Line(shell))
	}
	return fmt.Errorf("the machine could not execute the script (%s, status %d)", printable.Line(exit.Result), exit.Status)
}

// Close forgets the script.
func (b *scriptBody) Close() error { return b.file.Close() }
