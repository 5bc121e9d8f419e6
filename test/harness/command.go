package harness

import (
	"cmp"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// Command is a command that runs in the lab as root, in a clean environment,
// which may be added to. The end of the context kills its process group.
func (l *Lab) Command(ctx context.Context, argv ...string) *exec.Cmd {
	cmd := l.command(ctx, argv)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		// It may be on its way into the lab only, or fork at this moment.
		mine := func(group int) bool { return group == cmd.Process.Pid }
		for begin := time.Now(); time.Since(begin) < labStopLimit; time.Sleep(5 * time.Millisecond) {
			if l.killCommands(mine) == 0 && cmd.Process.Signal(syscall.Signal(0)) != nil {
				break
			}
		}
		return nil
	}
	return cmd
}

func (l *Lab) command(ctx context.Context, argv []string) *exec.Cmd {
	argv = append([]string{"nsenter", "-t", strconv.Itoa(l.leader), "-m", "-u", "-i", "-n", "-p", "-C", "--"}, argv...)
	argv = l.site.fence.inside(l.commands(), argv...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = []string{
		"HOME=/root",
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"TERM=" + cmp.Or(os.Getenv("TERM"), "dumb"),
		"LANG=C.UTF-8",
	}
	// A daemon that the command left in the lab must not hold up its Wait.
	cmd.WaitDelay = 3 * time.Second
	return cmd
}

// commands is the control group of what Command starts. It lies in the lab,
// where the lab's systemd leaves it alone: a process outside of the lab's
// groups sees paths that lead up and out, and programs that make groups below
// their own, such as systemd-nspawn, fail there.
func (l *Lab) commands() string {
	return filepath.Join(l.site.fence.unified, "payload", "commands")
}

// killCommands kills what Command started, by its process groups, and is the
// number of processes it found.
//
// It spares nsenter, which lives outside of the lab, until that has seen its
// child die: an orphan would be left to the outer machine's process 1, which
// may never look, and a lab is not down before its last zombie is. nsenter
// stops itself when its child is stopped, so it is told to go on.
func (l *Lab) killCommands(which func(group int) bool) (found int) {
	outside, _ := os.Readlink("/proc/self/ns/pid")
	for _, pid := range processes(l.commands()) {
		group, err := syscall.Getpgid(pid)
		if err != nil || !which(group) {
			continue
		}
		found++
		namespace, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "ns/pid"))
		switch {
		case err != nil: // it is dead
		case namespace == outside:
			_ = syscall.Kill(pid, syscall.SIGCONT)
		default:
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	return found
}

// endCommands kills all that Command started, and prevents more. A systemd
// that shuts down would wait in vain for processes that are not its children.
func (l *Lab) endCommands() {
	ctx, cancel := context.WithTimeout(context.Background(), labStopLimit)
	defer cancel()
	for {
		l.killCommands(func(int) bool { return true })
		// Without the group a command cannot start.
		if removeGroups(l.commands()) == nil || pause(ctx, 5*time.Millisecond) != nil {
			return
		}
	}
}
