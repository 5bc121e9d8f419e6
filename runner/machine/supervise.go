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

// The service of a machine with a program is this program, and systemd-nspawn is its child. It outlives
// the machine by a moment. So the last output of the program is complete, and it is known how the program
// ended. The journal has only as many lines as its rate limit lets through.

// Supervise is the command of the service of a machine with a program. dir is the directory of the
// machine. It returns the exit code of the program.
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

// keeperGroup is the control group of this process, beside those that systemd-nspawn makes. These get
// limits, so the group of the service itself must have no processes.
const keeperGroup = "keeper"

// stepAside moves this process from the control group of the service into one of its own. It opens the
// group of the service.
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
	// output is the output of the machine, errors that of systemd-nspawn itself.
	output, errors *os.File
	// greeted says whether the starter has said hello.
	greeted bool
}

func newChild(dir string, service *os.File) (*child, error) {
	path := filepath.Join(dir, planPipe)
	if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("make %s: %w", path, err)
	}
	plan, err := os.OpenFile(path, os.O_RDWR, 0) // with O_RDONLY, a reader would wait for the writer here
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
	// So the starter can give it to the program's user.
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
		if !strings.HasPrefix(pair, "NOTIFY_SOCKET=") { // the machine must not write there
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

// spare makes the kernel kill other processes for lack of memory, as long as there are some. If files fill a
// machine's memory, its largest processes are the two of the host. Without them it would not be known how the
// program ended. In a container, the host may not be allowed to do this.
func spare(pid int) {
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("-1000"), 0)
}

// relay tells systemd when the starter says hello, and copies the output that follows.
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

// terminated matches what systemd-nspawn prints if a signal has killed the program. Its own exit code is
// 1 then.
var terminated = regexp.MustCompile(`^Container \S+ terminated by signal ([A-Z0-9+]+)\.$`)

// listen copies what systemd-nspawn prints, and returns the signal that has killed the program, "" for
// none. No program in the machine can write there, because the starter has replaced its standard error.
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

// journalled writes to the host's journal. The journal takes consoleLines of a service in an hour (see
// properties); more lines would only keep journald busy. Write never fails, also while journald restarts,
// so that the ring beside it gets everything.
type journalled struct {
	to    io.Writer
	lines int
	since time.Time
}

func (j *journalled) Write(p []byte) (int, error) {
	if time.Since(j.since) > time.Hour {
		j.lines, j.since = 0, time.Now()
	}
	rest := p
	for j.lines <= consoleLines && len(rest) > 0 {
		end := bytes.IndexAny(rest, "\n\x00") // both end a line for journald
		if end < 0 {
			end = len(rest) - 1
		}
		rest = rest[end+1:]
		j.lines++
	}
	if n := len(p) - len(rest); n > 0 {
		_, _ = j.to.Write(p[:n])
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
