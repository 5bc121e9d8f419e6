package harness

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// LabOptions says what a lab is like. The zero value is a good lab.
type LabOptions struct {
	// Tree is what it boots; [LabTree] if it has no suite.
	Tree Recipe
	// Binds are directories of the outer machine that are to be seen in the
	// lab, by their paths there. The lab's own root is an overlay, and no
	// overlay can have its upper layer on that: bind a directory, or use
	// [Scratch].
	Binds map[string]string
	// ReadOnly are directories bound likewise, that the lab cannot write to.
	ReadOnly map[string]string
	// Memory, in bytes, and Tasks limit the whole lab where the outer machine
	// has the means; by default 8 GiB and 20000.
	Memory int64
	Tasks  int
	// Out gets a line about what takes long; nil discards it.
	Out io.Writer
}

// Scratch is an empty directory in each lab that lies on the outer machine's
// disk and goes away with the lab: for machines, and for files that become
// loop devices.
const Scratch = "/lab"

// A Lab is a running Debian in systemd-nspawn.
type Lab struct {
	site    *site
	process *process
	leader  int // its systemd, as a process of the outer machine

	stop    sync.Once
	stopErr error
}

// Limits of waiting. A lab is up in one second and down in another.
const (
	labStartLimit = time.Minute
	labStopLimit  = 10 * time.Second
)

// StartLab boots a lab and returns when its systemd is up. Stop must be
// called; the end of the context stops the lab too.
func StartLab(ctx context.Context, o LabOptions) (*Lab, error) {
	if o.Tree.Suite == "" {
		o.Tree = LabTree
	}
	if o.Memory == 0 {
		o.Memory = 8 << 30
	}
	if o.Tasks == 0 {
		o.Tasks = 20000
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	if os.Getuid() != 0 {
		return nil, errors.New("lab: start: only root can")
	}
	tree, err := Tree(ctx, o.Out, o.Tree)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	site, err := newSite(ctx)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	l := &Lab{site: site}
	if err := l.boot(ctx, tree, o); err != nil {
		console, _ := os.ReadFile(site.path("console"))
		return nil, errors.Join(fmt.Errorf("lab: boot: %w%s", err, tail(console)), l.Stop())
	}
	context.AfterFunc(ctx, func() { _ = l.Stop() })
	return l, nil
}

// boot starts systemd-nspawn and waits for the lab's systemd.
func (l *Lab) boot(ctx context.Context, tree string, o LabOptions) error {
	ctx, cancel := context.WithTimeoutCause(ctx, labStartLimit, errors.New("not up in time"))
	defer cancel()
	if err := l.site.fence.raise(o.Memory, o.Tasks); err != nil {
		return err
	}
	socket, err := listenReadiness(l.site.path("notify"))
	if err != nil {
		return err
	}
	defer socket.close()
	console, err := os.Create(l.site.path("console"))
	if err != nil {
		return err
	}
	defer console.Close()

	argv := l.site.fence.inside(l.site.fence.unified, contained(l.nspawn(tree, o)...)...)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(),
		"NOTIFY_SOCKET="+l.site.path("notify"),
		// The lab's systemd gets cgroup version 2, and a /proc/sys and /sys
		// it can write to; its machines may make any system call; and several
		// labs may boot the same tree.
		"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1",
		"SYSTEMD_NSPAWN_API_VFS_WRITABLE=1",
		"SYSTEMD_SECCOMP=0",
		"SYSTEMD_NSPAWN_LOCK=0",
	)
	cmd.Stdout, cmd.Stderr = console, console
	if l.process, err = start(cmd); err != nil {
		l.process = nil
		return err
	}
	select {
	case <-socket.ready():
	case <-l.process.exited:
		return fmt.Errorf("systemd-nspawn: %w", cmp.Or(l.process.err, errors.New("it ended")))
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return l.settle(ctx)
}

// nspawn is the command line that boots a tree.
func (l *Lab) nspawn(tree string, o LabOptions) []string {
	// systemd-nspawn keeps directories of each of its machines below /run, and
	// forgets them when it is killed: it gets a place that goes away with it.
	const tidy = `mkdir -p /run/systemd/nspawn && mount -t tmpfs -o mode=0700 tmpfs /run/systemd/nspawn && exec "$@"`
	argv := []string{
		"/bin/sh", "-c", tidy, "sh", "systemd-nspawn", "--quiet",
		"--machine=" + filepath.Base(l.site.dir),
		"--directory=" + tree, "--volatile=overlay",
		"--boot", "--notify-ready=yes", "--console=pipe",
		"--register=no", "--keep-unit",
		"--capability=all", "--system-call-filter=@known",
		"--link-journal=no", "--resolv-conf=replace-host",
		"--bind=" + bind(l.site.path("scratch"), Scratch),
	}
	for _, device := range []string{"/dev/fuse", "/dev/btrfs-control", "/dev/net/tun"} {
		if _, err := os.Stat(device); err == nil {
			argv = append(argv, "--bind="+device)
		}
	}
	for outer, inner := range o.Binds {
		argv = append(argv, "--bind="+bind(outer, inner))
	}
	for outer, inner := range o.ReadOnly {
		argv = append(argv, "--bind-ro="+bind(outer, inner))
	}
	return argv
}

// bind is the argument of nspawn's --bind, where a colon separates.
func bind(outer, inner string) string {
	escape := strings.NewReplacer(`\`, `\\`, `:`, `\:`)
	return escape.Replace(outer) + ":" + escape.Replace(inner)
}

// settle finds the lab's systemd, prepares for commands, and waits until all
// that is to start has started.
func (l *Lab) settle(ctx context.Context) error {
	payload := filepath.Join(l.site.fence.unified, "payload")
	var err error
	if l.leader, err = leader(filepath.Join(payload, "init.scope")); err != nil {
		return err
	}
	if err := os.Mkdir(l.commands(), 0o755); err != nil {
		return err
	}
	state, err := l.Command(ctx, "systemctl", "is-system-running", "--wait").Output()
	switch s := strings.TrimSpace(string(state)); s {
	case "running", "degraded":
		return nil
	default:
		return fmt.Errorf("its systemd is %q: %w", s, cmp.Or(context.Cause(ctx), err))
	}
}

// leader is the process of a control group that is process 1 in its innermost
// namespace.
func leader(group string) (int, error) {
	for _, pid := range processes(group) {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		for line := range strings.Lines(string(status)) {
			if strings.HasPrefix(line, "NSpid:") && strings.HasSuffix(line, "\t1\n") {
				return pid, nil
			}
		}
	}
	return 0, fmt.Errorf("leader: on %s: no process 1", group)
}

// Stop shuts the lab down, kills it if that takes too long, and clears all of
// it away. Its error says what was left. It may be called again, from
// anywhere.
func (l *Lab) Stop() error {
	l.stop.Do(func() { l.stopErr = l.shutDown() })
	return l.stopErr
}

func (l *Lab) shutDown() error {
	if l.process != nil {
		if l.leader != 0 && l.process.running() {
			l.endCommands()
			const powerOff = syscall.Signal(34 + 4) // SIGRTMIN+4, see systemd(1)
			_ = syscall.Kill(l.leader, powerOff)
			select {
			case <-l.process.exited:
			case <-time.After(labStopLimit):
			}
		}
		l.process.kill()
	}
	err := l.site.clear()
	l.site.lock.Close()
	if err != nil {
		return fmt.Errorf("lab: stop: %w", err)
	}
	return nil
}
