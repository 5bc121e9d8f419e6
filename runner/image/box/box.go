// Package box runs commands in a tree that is being built: in a box, which is a container
// that is not booted (box.go), or in a machine that runs from the tree.
//
// Commands enter either by a Door (door.go). Meanwhile the tree has files on loan
// (loan.go, standins.go), which are taken back: so that it keeps nothing of the host, of
// the build, and of a machine's start (traces.go, identity.go).
package box

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"al.essio.dev/pkg/shellescape"
	"golang.org/x/sys/unix"

	"nspawn-runner/runner/host"
)

// Tree is a tree that is being built, for boxes on it.
type Tree struct {
	Root     string
	Hostname string
	// Name is that of the box for systemd-nspawn, which makes directories of it: no other box
	// has it at the same time. It is like a host name, of at most 64 bytes.
	Name string
	// Shown are directories of the host that commands see where they are, read-only.
	Shown []string
}

// Box is a container on a tree that is being built: systemd-nspawn, not booted,
// with the host's network but processes, mounts and IPC of its own. Commands
// enter it by its namespaces, in 3 ms where a systemd-nspawn for each would
// need 150. What they leave running ends with the box, and the box ends with
// this process.
type Box struct {
	*Door
	cmd   *exec.Cmd
	stdin *os.File
	ended chan error
}

// payload is process 1 of a box. It says that it is there, collects what dies
// in the box, and ends when the other end of its standard input is closed, be
// it by our death. It must be called sh: ansible's facts then look past it for
// the service manager, and find systemd.
const payload = "exec 3<&0; echo ready; cat <&3 >/dev/null & wait"

// InBox does something in a box on the tree, which has loans meanwhile. The messages of
// systemd-nspawn go to log. If it does not start, the error is a *StartError.
func (t Tree) InBox(ctx context.Context, log io.Writer, loans []Loan, do func(*Box) error) (err error) {
	takeBack, err := lend(t.Root, t.Hostname, loans)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, takeBack()) }()
	box, err := t.open(ctx, log)
	if err != nil {
		return err
	}
	defer box.close()
	return do(box)
}

// StartError says how systemd-nspawn ended, which was to start a box.
type StartError struct{ Err error }

func (e *StartError) Error() string { return "systemd-nspawn: " + e.Err.Error() }

// Unwrap returns how it ended.
func (e *StartError) Unwrap() error { return e.Err }

// open starts a box.
func (t Tree) open(ctx context.Context, log io.Writer) (*Box, error) {
	input, stdin, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer input.Close()
	output, stdout, err := os.Pipe()
	if err != nil {
		stdin.Close()
		return nil, err
	}
	defer output.Close()

	x := &Box{stdin: stdin, ended: make(chan error, 1)}
	args := []string{"--console=pipe"}
	for _, dir := range t.Shown {
		args = append(args, "--bind-ro="+dir)
	}
	x.cmd = t.nspawn(ctx, append(args, "/bin/sh", "-c", payload)...)
	x.cmd.SysProcAttr.Setsid = true
	x.cmd.Stdin, x.cmd.Stdout, x.cmd.Stderr = input, stdout, log
	fmt.Fprintf(log, "+ %s\n", shellescape.QuoteCommand(x.cmd.Args))
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // for Pdeathsig: the kernel takes the thread for its parent
		defer runtime.UnlockOSThread()
		err := x.cmd.Start()
		started <- err
		if err == nil {
			err = x.cmd.Wait()
		}
		x.ended <- err
	}()
	err = <-started
	stdout.Close() // so that the box's end is the end of its output
	if err != nil {
		stdin.Close()
		return nil, err
	}
	if line, _ := bufio.NewReader(output).ReadString('\n'); line == "ready\n" {
		err = x.hold()
	} else {
		err = errors.New("systemd-nspawn did not start a shell")
	}
	if err == nil {
		return x, nil
	}
	if ended := x.close(); ended != nil {
		return nil, &StartError{Err: ended}
	}
	return nil, err
}

// hold finds process 1 of the box and opens what a command has to enter.
func (x *Box) hold() error {
	pid := x.cmd.Process.Pid
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return err
	}
	for _, child := range strings.Fields(string(children)) {
		if !isFirst(child) {
			continue
		}
		first, err := strconv.Atoi(child)
		if err == nil {
			x.Door, err = openDoor(first)
		}
		if err == nil {
			// A box shares the host's network: a role that flushes iptables, or
			// sets the clock, must fail in it (seen: it flushed the host's).
			x.first, err = asBoundAs(first)
		}
		return err
	}
	return fmt.Errorf("systemd-nspawn (process %d) has no process that is the first of a namespace", pid)
}

// isFirst says whether a process is number 1 in its own namespace, and not in
// ours too.
func isFirst(pid string) bool {
	status, err := os.ReadFile(filepath.Join("/proc", pid, "status"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		if numbers, ok := strings.CutPrefix(line, "NSpid:"); ok {
			inside := strings.Fields(numbers)
			return len(inside) > 1 && inside[len(inside)-1] == "1"
		}
	}
	return false
}

// close ends all that runs in the box and returns how systemd-nspawn ended.
func (x *Box) close() error {
	if x.Door != nil {
		x.Door.Close()
	}
	x.stdin.Close()
	select {
	case err := <-x.ended:
		return err
	case <-time.After(10 * time.Second):
		_ = x.cmd.Process.Kill()
		return <-x.ended
	}
}

// Environment is that of a command in a tree: what a login of root would have, and more
// on top.
func Environment(more map[string]string) map[string]string {
	env := map[string]string{
		"PATH":      "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME":      "/root",
		"USER":      "root",
		"LOGNAME":   "root",
		"LANG":      "C.UTF-8",
		"container": "systemd-nspawn",
	}
	maps.Copy(env, more)
	return env
}

// Shell runs root's login shell in the tree, with more in its environment. An exit status
// of the shell other than 0 is an *exec.ExitError.
func (t Tree) Shell(ctx context.Context, environment map[string]string, stdin io.Reader, stdout, stderr io.Writer) (err error) {
	takeBack, err := lend(t.Root, t.Hostname, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, takeBack()) }()

	console := "--console=pipe"
	if host.IsTerminal(stdin) && host.IsTerminal(stdout) {
		console = "--console=interactive"
	}
	args := []string{console}
	for name, value := range environment {
		args = append(args, "--setenv="+name+"="+value)
	}
	cmd := t.nspawn(ctx, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	err = WithoutSync(cmd.Run) // on a thread of its own: for Pdeathsig, as in open
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// Leftovers are what a box of a name has left on this host, if its systemd-nspawn was killed.
func Leftovers(name string) (paths []string) {
	for _, dir := range []string{"propagate", "unix-export"} {
		path := filepath.Join("/run/systemd/nspawn", dir, name)
		if _, err := os.Lstat(path); err == nil {
			paths = append(paths, path)
		}
	}
	return paths
}

// RemoveLeftovers removes them. Something may be mounted there, since systemd 256.
func RemoveLeftovers(name string) (err error) {
	for _, path := range Leftovers(name) {
		_ = unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) // if it is mounted
		if removed := os.Remove(path); !errors.Is(removed, fs.ErrNotExist) {
			err = errors.Join(err, removed)
		}
	}
	return err
}

// nspawn is the command line of systemd-nspawn for the tree: it leaves no trace in the
// tree, and it does without systemd on the host.
func (t Tree) nspawn(ctx context.Context, args ...string) *exec.Cmd {
	argv, alone := Lift(t.Root, append(outside(
		"systemd-nspawn",
		"--quiet", "--register=no", "--keep-unit", "--settings=no",
		"--directory="+t.Root, "--machine="+t.Name, "--hostname="+t.Hostname,
		"--resolv-conf=off", "--timezone=off", "--link-journal=no",
	), args...))
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(),
		"SYSTEMD_NSPAWN_LOCK=0",              // else a lock file appears beside the tree
		"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1") // for hosts with a hybrid hierarchy
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Unshareflags: alone}
	cmd.WaitDelay = 5 * time.Second
	return cmd
}
