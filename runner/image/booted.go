package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/fault"
)

// A playbook can run in the generation while it is booted, as jobs will have it: its
// services run, and a database has a server to talk to. The machine's root is the tree
// itself. It is shut down in good order before anything else is done with the tree, so
// that what its services wrote is whole.

// Order says which machine a build wants.
type Order struct {
	Image      string
	Generation Generation
	// Hostname is what the machine calls itself.
	Hostname string
	// Shown are directories of the host that it sees where they are, read-only.
	Shown []string
	// Begin is called before it starts, with the paths below its root that the start may
	// make or change.
	Begin func(touched []string)
}

// Booted is a machine that runs on the tree of a build.
type Booted struct {
	// PID is its first process, Alive says whether that still is it.
	PID   int
	Alive func() bool
	// Owner is the host's user id of its root, 0 where that is the host's.
	Owner int
	// Group is the directory of the control group for commands from outside.
	Group string
	// Shutdown shuts it down in good order, Kill at once; nothing of it is left then.
	Shutdown, Kill func(context.Context) error
}

// playBooted runs the playbook in a machine whose root is the generation.
func (b *build) playBooted(ctx context.Context, book Playbook) (err error) {
	root := b.generation.Path
	if err := forgetMachine(root); err != nil { // as jobs will have it
		return err
	}
	marks, err := openMarks(root)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, marks.Close()) }()
	machine, err := b.store.Boot(ctx, Order{
		Image: b.image, Generation: b.generation, Hostname: hostname(b.image),
		Shown: b.mirrors,
		Begin: func(touched []string) {
			b.suspect = true // if it does not boot, the reason is in the tree
			marks.before(touched)
		},
	})
	if err != nil {
		marks.after()
		return errors.Join(err, marks.takeBack())
	}
	fault.Here("image: booted")
	err = b.playInMachine(ctx, book, machine, marks)
	if ctx.Err() != nil { // the tree is thrown away
		return errors.Join(err, machine.Kill(ctx))
	}
	if err != nil && !machine.Alive() {
		err = fmt.Errorf("%w; the machine of the build has ended: a playbook cannot reboot or shut down what it builds", err)
	}
	switch ended := machine.Shutdown(ctx); {
	case err == nil:
		err = ended
	case ended != nil:
		err = fmt.Errorf("%w (and then: %v)", err, ended)
	}
	fault.Here("image: shut down")
	return errors.Join(err, marks.takeBack(), forgetBoot(root))
}

// playInMachine runs the playbook in a machine that is up.
func (b *build) playInMachine(ctx context.Context, book Playbook, machine *Booted, marks *marks) error {
	marks.after()
	door, err := machine.open()
	if err != nil {
		return err
	}
	defer door.Close()
	defer door.keepGoing()()
	stop, err := door.relay(loopbackProxies(b.store.Environment))
	if err != nil {
		return err
	}
	defer stop()
	return b.download(func() (net.Listener, error) { return door.listen(anyPort) }, func(d *downloads) error {
		scripts, err := lendStandIns(marks.tree, "booted")
		if err != nil {
			return err
		}
		restore, err := give(b.generation.Path, append(scripts, d.loans()...))
		if err != nil {
			return err
		}
		return errors.Join(b.ansible(ctx, book, door), restore())
	})
}

// bootedEntrances are those of a machine, which has more of its own than a box.
var bootedEntrances = append([]entrance{{"--user", "ns/user"}, {"--net", "ns/net"}, {"--cgroup", "ns/cgroup"}}, entrances...)

// open opens what a command enters.
func (m *Booted) open() (*door, error) {
	through := bootedEntrances
	if m.Owner == 0 { // nobody enters the user namespace in which they are
		through = through[1:]
	}
	d, err := openDoor(m.PID, through)
	if err != nil {
		return nil, err
	}
	d.owner, d.group = m.Owner, m.Group
	if m.Owner > 0 {
		d.become = []string{"--setuid=0", "--setgid=0"}
	}
	d.first, err = asBoundAs(m.PID)
	if err == nil && !m.Alive() { // asked after opening: what is open is the machine's
		err = errors.New("the machine of the build has ended")
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// asBoundAs is a command that gives the one behind it no more capabilities than a
// process can ever have: who enters a machine from outside has all of them there.
func asBoundAs(pid int) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil, err
	}
	var bound uint64
	for line := range strings.Lines(string(text)) {
		if set, is := strings.CutPrefix(line, "CapBnd:"); is {
			if _, err := fmt.Sscanf(set, "%x", &bound); err != nil {
				return nil, fmt.Errorf("capabilities of process %d: %w", pid, err)
			}
		}
	}
	var last int
	text, err = os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err == nil {
		_, err = fmt.Sscan(string(text), &last)
	}
	if err != nil {
		return nil, err
	}
	var without []string
	for capability := range last + 1 {
		if bound&(1<<capability) == 0 {
			without = append(without, fmt.Sprintf("-cap_%d", capability))
		}
	}
	if without == nil {
		return nil, nil
	}
	return []string{"setpriv", "--bounding-set=" + strings.Join(without, ","), "--"}, nil
}

// listen listens at an address of the machine: what a build serves must be reached from
// inside. Where the machine has the host's network, it is one of the host's.
func (d *door) listen(address string) (net.Listener, error) {
	network := d.handles["--net"]
	if network == nil {
		return net.Listen("tcp", address)
	}
	type result struct {
		listener net.Listener
		err      error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // for good: the thread has another network, and ends with this
		var r result
		if r.err = unix.Setns(int(network.Fd()), unix.CLONE_NEWNET); r.err == nil {
			r.listener, r.err = net.Listen("tcp", address)
		}
		done <- r
	}()
	r := <-done
	return r.listener, r.err
}

// keepGoing continues each nsenter that is stopped, until the returned function is called.
// nsenter stops itself when what it executed is stopped, as systemd does with all that runs
// in a machine before it turns that off; nobody outside would ever continue it, and in the
// kernel the machine waits for it.
func (d *door) keepGoing() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		for ctx.Err() == nil {
			text, _ := os.ReadFile(filepath.Join(d.group, "cgroup.procs"))
			for word := range strings.FieldsSeq(string(text)) {
				pid, _ := strconv.Atoi(word)
				if stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); strings.Contains(string(stat), " (nsenter) T ") {
					_ = unix.Kill(pid, unix.SIGCONT)
				}
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}()
	return cancel
}

// forgetBoot takes from a tree what belongs to one boot of it alone.
func forgetBoot(root string) error {
	tree, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer tree.Close()
	id, _ := tree.ReadFile("etc/machine-id")
	if name := strings.TrimSpace(string(id)); filepath.IsLocal(name) && !strings.Contains(name, "/") {
		if err := tree.RemoveAll(filepath.Join("var/log/journal", name)); err != nil {
			return err
		}
	}
	for _, pattern := range ofOneBoot {
		paths, err := fs.Glob(tree.FS(), pattern)
		if err != nil {
			return err
		}
		for _, path := range paths {
			if err := tree.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	return forgetMachine(root)
}

// ofOneBoot are what no two machines may share, and what each makes for itself.
var ofOneBoot = []string{
	"var/lib/systemd/random-seed", "var/lib/systemd/credential.secret",
	"tmp/.*-unix", "tmp/systemd-private-*", "var/tmp/systemd-private-*",
}
