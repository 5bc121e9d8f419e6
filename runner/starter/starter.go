// Package starter is the first program of a machine that has no init. It takes the user, the groups, the working
// directory and the environment of an image of a registry, and then becomes the image's program.
//
// systemd-nspawn starts it as the machine's root, after it has made all namespaces. It is the file of this program,
// and static, because an image may have no other file than its own program. It says hello on its standard output. Then
// it reads a [Plan] from its standard input, which comes when the machine has its limits. The files of the image, such
// as passwd(5), are hostile. But the starter runs in the machine, and can do nothing there that the image's program
// could not do.
package starter

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Plan says what a machine executes.
type Plan struct {
	// Command is the program and its arguments. A name without a slash is looked up in PATH.
	Command []string `json:"command"`
	// Environment has a NAME=VALUE for each variable. Of two with the same name, the last one counts.
	// PATH, HOME and HOSTNAME have defaults.
	Environment []string `json:"environment,omitempty"`
	// User is a user, maybe with a group, by name or number, such as "postgres" or "70:70". "" is
	// root.
	User string `json:"user,omitempty"`
	// WorkingDir is a directory of the image, "" for its root. It is made if it does not exist.
	WorkingDir string `json:"working_dir,omitempty"`
}

// Hello is the byte that a starter writes when it waits for its plan.
const Hello = 0

// maxPlan bounds a plan, in bytes. The kernel refuses longer command lines and environments.
const maxPlan = 8 << 20

// Send sends a plan to a starter.
func (p Plan) Send(to io.Writer) error { return json.NewEncoder(to).Encode(p) }

// Run is the starter. It returns only if it fails, with an exit code. Its error goes to the standard output, as the
// program's output would.
func Run() int {
	runtime.LockOSThread() // each thread has capabilities of its own
	err := run()
	fmt.Fprintf(os.Stdout, "nspawn-runner: %v\n", err)
	var failed failure
	if errors.As(err, &failed) {
		return failed.code
	}
	return unable
}

func run() error {
	if _, err := os.Stdout.Write([]byte{Hello}); err != nil {
		return err
	}
	var plan Plan
	if err := json.NewDecoder(io.LimitReader(os.Stdin, maxPlan)).Decode(&plan); err != nil {
		return fmt.Errorf("read what to start: %w", err)
	}
	if len(plan.Command) == 0 || plan.Command[0] == "" {
		return errors.New("the image has no command, and the job gives none")
	}
	who, err := identify(plan.User, readSmall("/etc/passwd"), readSmall("/etc/group"))
	if err != nil {
		return err
	}
	if err := redirect(who); err != nil {
		return err
	}
	dir := path.Join("/", plan.WorkingDir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("working directory: %w", err)
	}
	if err := os.Chdir(dir); err != nil {
		return fmt.Errorf("working directory: %w", err)
	}
	environment := complete(plan.Environment, who)
	if err := become(who); err != nil {
		return err
	}
	return execute(plan.Command, environment)
}

// redirect gives the program the standard files that docker gives: an empty input, and one pipe for output and errors,
// which it may open again as /dev/stdout. Before, the standard error is that of systemd-nspawn.
func redirect(who identity) error {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/null: %w", err)
	}
	defer unix.Close(null)
	if err := unix.Dup2(null, 0); err != nil {
		return err
	}
	if err := unix.Dup2(1, 2); err != nil {
		return err
	}
	return unix.Fchown(1, who.uid, who.gid)
}

// become takes the user, the groups and the limits of the program. From then on, the starter has no more privileges
// than the program.
func become(who identity) error {
	unix.Umask(0o022)
	// The soft limit of open files becomes the hard one. docker's daemon usually gives a million, and
	// some programs refuse to start with 1024.
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err == nil {
		files.Cur = files.Max
		_ = syscall.Setrlimit(unix.RLIMIT_NOFILE, (*syscall.Rlimit)(&files))
	}
	if err := syscall.Setgroups(who.groups); err != nil {
		return fmt.Errorf("groups %v: %w", who.groups, err)
	}
	if err := syscall.Setgid(who.gid); err != nil {
		return fmt.Errorf("group %d: %w: a machine has the ids from 0 to 1048575", who.gid, err)
	}
	if err := syscall.Setuid(who.uid); err != nil {
		return fmt.Errorf("user %d: %w: a machine has the ids from 0 to 1048575", who.uid, err)
	}
	return dropInheritable()
}

// dropInheritable clears the inheritable capabilities. Otherwise programs of the image with file capabilities could
// give them to other users than root.
func dropInheritable() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read the capabilities: %w", err)
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("drop inheritable capabilities: %w", err)
	}
	return nil
}

// complete returns an environment for execve(2). Each name is in it once, and it has the defaults of docker.
func complete(pairs []string, who identity) []string {
	values := map[string]string{}
	host, _ := os.Hostname()
	values["PATH"], values["HOSTNAME"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", host
	for _, pair := range pairs {
		if name, value, is := strings.Cut(pair, "="); is && name != "" && !strings.Contains(pair, "\x00") {
			values[name] = value
		}
	}
	if values["HOME"] == "" {
		values["HOME"] = who.home
	}
	all := make([]string, 0, len(values))
	for name, value := range values {
		all = append(all, name+"="+value)
	}
	slices.Sort(all)
	return all
}
