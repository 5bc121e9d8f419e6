package machine

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/limits"
	"nspawn-runner/runner/starter"
)

// The service of a machine with a program is this program, which has systemd-nspawn for a
// child. It outlives the machine by a moment. So what the program wrote last is complete, and
// it is known how the program ended; of its last lines, the journal has no more than its limit
// of lines lets through.

// Supervise is the command of the service of a machine with a program. It returns with the
// exit code of the machine.
func Supervise(dir string) (code int, err error) {
	service, err := stepAside()
	if err != nil {
		return 1, err
	}
	defer service.Close()
	fault.Here("supervise: stepped aside")
	output, err := newRing(filepath.Join(dir, outputFile))
	if err != nil {
		return 1, err
	}
	machine, err := newChild(dir, service)
	if err != nil {
		return 1, err
	}
	var end End
	var reading sync.WaitGroup
	reading.Go(func() { machine.relay(io.MultiWriter(output, &journalled{to: os.Stdout})) })
	reading.Go(func() { end.Signal = machine.listen(os.Stderr) })
	err = machine.cmd.Wait()
	machine.readFor(outputLag)
	reading.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		end.Code = exit.ExitCode()
	} else if err != nil {
		return 1, err
	}
	if end.Signal != "" {
		end.Code = 128 + int(unix.SignalNum("SIG"+end.Signal))
	}
	group := strings.TrimPrefix(service.Name(), "/sys/fs/cgroup")
	end.OutOfMemory = limits.Kills(group) > 0
	if used, err := limits.UsageOf(group, machine.record.Age()); err == nil {
		end.Usage = &used
	}
	if !machine.greeted {
		return max(end.Code, 1), errors.New("the machine ended before its program could begin")
	}
	text, err := json.Marshal(end)
	if err != nil {
		return end.Code, err
	}
	return end.Code, os.WriteFile(filepath.Join(dir, endFile), text, 0o600)
}

// keeperGroup is the control group of this process, beside those that systemd-nspawn makes. In
// the service's own group must be no process when those get their limits.
const keeperGroup = "keeper"

// stepAside moves this process into a group of its own, and opens that of the service, in which
// systemd started it.
func stepAside() (*os.File, error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	_, group, found := strings.Cut(strings.TrimSpace(string(text)), "0::")
	if !found {
		return nil, fmt.Errorf("no control group in %q", text)
	}
	group, _, _ = strings.Cut(group, "\n")
	path := filepath.Join("/sys/fs/cgroup", group)
	own := filepath.Join(path, keeperGroup)
	if err := os.Mkdir(own, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(own, "cgroup.procs"), []byte("0"), 0); err != nil {
		return nil, fmt.Errorf("move to %s: %w", own, err)
	}
	return os.Open(path)
}

// child is the process that becomes systemd-nspawn.
type child struct {
	cmd *exec.Cmd
	pid int
	// record is that of its machine.
	record Record
	// output is what the machine writes, errors what systemd-nspawn itself has to say.
	output, errors *os.File
	// greeted says whether the starter came to say hello.
	greeted bool
}

func newChild(dir string, service *os.File) (*child, error) {
	path := filepath.Join(dir, planPipe)
	if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("make %s: %w", path, err)
	}
	plan, err := os.OpenFile(path, os.O_RDWR, 0) // so that it waits for who writes
	if err != nil {
		return nil, err
	}
	defer plan.Close()
	c := &child{}
	if c.record, err = readRecord(dir); err != nil {
		return nil, err
	}
	var writers [2]*os.File
	for i, reader := range []**os.File{&c.output, &c.errors} {
		if *reader, writers[i], err = os.Pipe(); err != nil {
			return nil, err
		}
		defer writers[i].Close()
	}
	// So that the starter can give it to the program's user.
	if err := writers[0].Chown(c.record.RootUID, c.record.RootUID); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c.cmd = exec.Command(self, "boot", dir)
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = plan, writers[0], writers[1]
	for _, pair := range os.Environ() {
		if !strings.HasPrefix(pair, "NOTIFY_SOCKET=") { // the machine has nothing to say there
			c.cmd.Env = append(c.cmd.Env, pair)
		}
	}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(service.Fd())}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	c.pid = c.cmd.Process.Pid
	spare(os.Getpid()) // not before, as the child would inherit it
	fault.Here("supervise: systemd-nspawn begins")
	return c, nil
}

// spare has the kernel kill other processes for memory, as long as there are some. What fills a
// machine's memory may be files, and then its largest processes are the host's two: without them
// nobody knows how the program ended. In a container the host may not do this.
func spare(pid int) {
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("-1000"), 0)
}

// relay tells systemd when the starter says hello, and passes on all that comes behind that.
func (c *child) relay(to io.Writer) {
	var hello [1]byte
	if _, err := io.ReadFull(c.output, hello[:]); err != nil || hello[0] != starter.Hello {
		return
	}
	c.greeted = true
	spare(c.pid) // it starts no processes any more, which would inherit it
	if err := notifyReady(); err != nil {
		fmt.Fprintf(os.Stderr, "tell systemd that the machine is ready: %v\n", err)
	}
	_, _ = io.Copy(to, c.output)
}

// outputLag is how long what the program wrote last may be on its way when the machine has ended.
const outputLag = time.Second

// readFor ends the reading of what the machine writes after a time. A program may have handed its
// output to a process outside, such as in the job's machine, which keeps it open.
func (c *child) readFor(d time.Duration) {
	end := time.Now().Add(d)
	_ = errors.Join(c.output.SetReadDeadline(end), c.errors.SetReadDeadline(end)) // pipes have deadlines
}

// terminated is what systemd-nspawn says of a machine whose program a signal killed: to its
// parent, it ends with 1.
var terminated = regexp.MustCompile(`^Container \S+ terminated by signal ([A-Z0-9+]+)\.$`)

// listen passes on what systemd-nspawn says, and returns the signal that it tells of. No
// program in the machine can write there: the starter has replaced it.
func (c *child) listen(to io.Writer) (signal string) {
	lines := bufio.NewScanner(c.errors)
	for lines.Scan() {
		if match := terminated.FindStringSubmatch(lines.Text()); match != nil {
			signal = match[1]
			continue
		}
		fmt.Fprintln(to, lines.Text())
	}
	return signal
}

// journalled is a writer for the host's journal, which takes consoleLines of a service in an
// hour (see properties). What is more would only keep journald busy. Nothing fails to it, so that
// the file beside it gets all: journald may be restarted.
type journalled struct {
	to    io.Writer
	lines int
	since time.Time
}

func (j *journalled) Write(p []byte) (int, error) {
	if time.Since(j.since) > time.Hour {
		j.lines, j.since = 0, time.Now()
	}
	if j.lines <= consoleLines {
		j.lines += max(1, bytes.Count(p, []byte("\n")))
		_, _ = j.to.Write(p)
	}
	return len(p), nil
}

// notifyReady is sd_notify(3).
func notifyReady() error {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return errors.New("NOTIFY_SOCKET is not set")
	}
	conn, err := net.DialTimeout("unixgram", name, time.Second) // net makes @ of an abstract one
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte("READY=1"))
	return err
}
