package image

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"nspawn-runner/runner/image/downloads"
)

// box is a container on a tree that is being built: systemd-nspawn, not booted,
// with the host's network but processes, mounts and IPC of its own. Commands
// enter it by its namespaces, in 3 ms where a systemd-nspawn for each would
// need 150. What they leave running ends with the box, and the box ends with
// this process.
type box struct {
	*door
	cmd   *exec.Cmd
	stdin *os.File
	ended chan error
}

// payload is process 1 of a box. It says that it is there, collects what dies
// in the box, and ends when the other end of its standard input is closed, be
// it by our death. It must be called sh: ansible's facts then look past it for
// the service manager, and find systemd.
const payload = "exec 3<&0; echo ready; cat <&3 >/dev/null & wait"

// inBox does something in a box on the generation, which is lent what commands need.
func (b *build) inBox(ctx context.Context, p *downloads.Proxy, do func(*box) error) (err error) {
	restore, err := lend(b.generation.Path, b.image, loansOf(p)...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, restore()) }()
	box, err := b.openBox(ctx)
	if err != nil {
		return err
	}
	defer box.Close()
	return do(box)
}

// openBox starts a box on the generation. Its messages go to the log.
func (b *build) openBox(ctx context.Context) (*box, error) {
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

	x := &box{stdin: stdin, ended: make(chan error, 1)}
	args := []string{"--console=pipe"}
	for _, mirror := range b.mirrors {
		args = append(args, "--bind-ro="+mirror)
	}
	x.cmd = nspawn(ctx, b.generation.Path, b.image, append(args, "/bin/sh", "-c", payload)...)
	x.cmd.SysProcAttr.Setsid = true
	x.cmd.Stdin, x.cmd.Stdout, x.cmd.Stderr = input, stdout, b.log
	fmt.Fprintf(b.log, "+ %s\n", quote(x.cmd.Args))
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // for Pdeathsig, as in run
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
	if ended := x.Close(); ended != nil {
		return nil, fmt.Errorf("systemd-nspawn: %w", b.log.reason(ended))
	}
	return nil, err
}

// hold finds process 1 of the box and opens what a command has to enter.
func (x *box) hold() error {
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
			x.door, err = openDoor(first)
		}
		if err == nil {
			// A box shares the host's network: a role that flushes iptables, or
			// sets the clock, must fail in it (seen: it flushed the host's).
			x.door.first, err = asBoundAs(first)
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

// Close ends all that runs in the box and returns how systemd-nspawn ended.
func (x *box) Close() error {
	if x.door != nil {
		x.door.Close()
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

// environmentInside is that of a command in a box: what a login of root would have,
// and the store's on top.
func (s *Store) environmentInside() map[string]string {
	env := map[string]string{
		"PATH":      "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME":      "/root",
		"USER":      "root",
		"LOGNAME":   "root",
		"LANG":      "C.UTF-8",
		"container": "systemd-nspawn",
	}
	maps.Copy(env, s.Environment)
	return env
}

// Shell runs root's login shell in the tree at root, the copy that Edit made.
// An exit status of the shell other than 0 is an *exec.ExitError.
func (s *Store) Shell(ctx context.Context, root string, stdin io.Reader, stdout, stderr io.Writer) (err error) {
	image := filepath.Base(filepath.Dir(root)) // .generations/IMAGE/STAMP
	restore, err := lend(root, image)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, restore()) }()

	console := "--console=pipe"
	if isTerminal(stdin) && isTerminal(stdout) {
		console = "--console=interactive"
	}
	args := []string{console}
	for name, value := range s.Environment {
		args = append(args, "--setenv="+name+"="+value)
	}
	cmd := nspawn(ctx, root, image, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	err = withoutSync(cmd.Run) // on a thread of its own: for Pdeathsig, as in run
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// boxName is systemd-nspawn's name for the box of an image, of which it makes
// names of directories: see boxDirs. It may have 64 characters.
func boxName(image string) string {
	name := "build-" + hostname(image)
	return strings.TrimRight(name[:min(len(name), 64)], "-")
}

// boxDirs are what systemd-nspawn leaves behind of an image's box if it is
// killed. The second may be mounted, since systemd 256.
func boxDirs(image string) []string {
	return []string{"/run/systemd/nspawn/propagate/" + boxName(image), "/run/systemd/nspawn/unix-export/" + boxName(image)}
}

// nspawn is the command line of systemd-nspawn for a tree that is being built:
// it leaves no trace in the tree, and it does without systemd on the host.
func nspawn(ctx context.Context, root, image string, args ...string) *exec.Cmd {
	argv, alone := lifted(root, append([]string{
		"systemd-nspawn",
		"--quiet", "--register=no", "--keep-unit", "--settings=no",
		"--directory=" + root, "--machine=" + boxName(image), "--hostname=" + hostname(image),
		"--resolv-conf=off", "--timezone=off", "--link-journal=no",
	}, args...))
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(),
		"SYSTEMD_NSPAWN_LOCK=0",              // else a lock file appears beside the tree
		"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1") // for hosts with a hybrid hierarchy
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Unshareflags: alone}
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// isTerminal says whether a stream, if it is a file at all, is a terminal.
func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}
