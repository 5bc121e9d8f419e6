package image

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// box is a container on a tree that is being built: systemd-nspawn, not booted,
// with the host's network and its own processes, mounts and IPC. Commands enter
// it through its namespaces, in 3 ms where a systemd-nspawn each would need 70.
// Whatever they leave running ends with the box, and the box with this process.
type box struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	ended  chan error
	files  map[string]*os.File // the namespaces, held open
	loaned *loans
}

// payload is the box's process 1. It says that it is there, collects what dies
// in the box, and ends when our end of its standard input is closed, be it by
// our death. That it is called sh is why ansible's facts see past it and find
// systemd.
const payload = "exec 3<&0; echo ready; cat <&3 >/dev/null & wait"

// namespaces are those that a command enters, by their names for nsenter and in
// /proc/PID.
var namespaces = map[string]string{
	"--mount": "ns/mnt", "--uts": "ns/uts", "--ipc": "ns/ipc", "--pid": "ns/pid", "--root": "root", "--wd": "root",
}

// nspawn is the command line of systemd-nspawn for a tree that is being built.
func (s *Store) nspawn(ctx context.Context, root, image string, args ...string) *exec.Cmd {
	name := hostname(image)
	args = append([]string{
		"--quiet", "--register=no", "--keep-unit", "--as-pid2=no",
		"--directory=" + root, "--machine=" + name, "--hostname=" + name,
		"--resolv-conf=off", "--timezone=off", "--link-journal=no", "--settings=no",
	}, args...)
	cmd := exec.CommandContext(ctx, "systemd-nspawn", args...)
	cmd.Env = append(os.Environ(),
		"SYSTEMD_NSPAWN_LOCK=0",              // it would put a lock file beside the tree
		"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1") // hosts whose own hierarchy is a hybrid
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// openBox starts a box on the generation.
func (b *build) openBox(ctx context.Context) (_ *box, err error) {
	root := b.generation.Path
	x := &box{ended: make(chan error, 1), files: map[string]*os.File{}}
	defer func() {
		if err != nil {
			err = fmt.Errorf("start systemd-nspawn: %w", errors.Join(err, x.Close()))
		}
	}()
	if x.loaned, err = lend(root, b.image); err != nil {
		return nil, err
	}
	x.cmd = b.store.nspawn(ctx, root, b.image, "--console=pipe", "/bin/sh", "-c", payload)
	x.cmd.SysProcAttr.Setsid = true
	x.cmd.Stderr = b.log
	if x.stdin, err = x.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := x.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(b.log, "+ %s\n", quote(x.cmd.Args))
	started := make(chan error)
	go func() {
		// As in run: the parent of a process is the thread that started it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := x.cmd.Start()
		started <- err
		if err == nil {
			x.ended <- x.cmd.Wait()
		}
	}()
	return x, nil
}
