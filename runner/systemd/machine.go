package systemd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"nspawn-runner/runner/host"
)

// AwaitLeader waits until a machine is registered, and returns its first
// process, which then has all its namespaces but may not be init yet.
func (b *Bus) AwaitLeader(ctx context.Context, machine string) (host.Process, error) {
	appeared := b.watch("/org/freedesktop/machine1", "org.freedesktop.machine1.Manager", "MachineNew", ",arg0='"+machine+"'")
	defer b.unwatch(appeared)
	for {
		leader, err := b.Leader(ctx, machine)
		if err == nil || !IsNoSuchUnit(err) {
			return leader, err
		}
		if _, err := b.next(ctx, appeared); err != nil {
			return host.Process{}, err
		}
	}
}

// ForgetEarlier makes systemd-machined forget a machine whose first process has ended. It forgets one by
// itself only after it has heard of the end of its unit, and not if that unit has meanwhile been started
// again. Until then, there can be no other machine of that name.
func (b *Bus) ForgetEarlier(ctx context.Context, machine string) error {
	_, err := b.Leader(ctx, machine)
	if errors.Is(err, os.ErrProcessDone) {
		ctx, cancel := context.WithTimeoutCause(ctx, AnswerLimit, errNoMachined)
		defer cancel()
		machined := b.conn.Object("org.freedesktop.machine1", "/org/freedesktop/machine1")
		if err = machined.CallWithContext(ctx, "org.freedesktop.machine1.Manager.UnregisterMachine", 0, machine).Err; err != nil {
			err = b.explain(ctx, err)
		}
	}
	if IsNoSuchUnit(err) {
		return nil
	}
	return err
}

// errNoMachined is the cause when systemd-machined hangs: it waits for what a machine's
// os-release is, while it lists machines, or for the bus of one that somebody logs into.
var errNoMachined = errors.New("systemd-machined does not answer: systemctl restart systemd-machined")

// errNoSuchMachine is the error for a machine that machined has forgotten since it told its object.
var errNoSuchMachine = dbus.Error{Name: "org.freedesktop.machine1.NoSuchMachine", Body: []any{"the machine has ended"}}

// Leader asks systemd-machined for the first process of a machine. The error is os.ErrProcessDone if that
// has ended.
func (b *Bus) Leader(ctx context.Context, machine string) (host.Process, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, AnswerLimit, errNoMachined)
	defer cancel()
	var path dbus.ObjectPath
	machined := b.conn.Object("org.freedesktop.machine1", "/org/freedesktop/machine1")
	if err := machined.CallWithContext(ctx, "org.freedesktop.machine1.Manager.GetMachine", 0, machine).Store(&path); err != nil {
		return host.Process{}, b.explain(ctx, err)
	}
	var value dbus.Variant
	object := b.conn.Object("org.freedesktop.machine1", path)
	if err := object.CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, "org.freedesktop.machine1.Machine", "Leader").Store(&value); err != nil {
		if isError(err, "org.freedesktop.DBus.Error.UnknownObject") {
			err = errNoSuchMachine
		}
		return host.Process{}, b.explain(ctx, err)
	}
	pid, ok := value.Value().(uint32)
	if !ok {
		return host.Process{}, fmt.Errorf("machine %s: machined does not know its leader", machine)
	}
	return host.FindProcess(int(pid))
}

// Machine connects to the service manager inside a machine. leader is the
// machine's first process, owner the host's user id of the machine's root.
//
// Everything on the way to the socket belongs to the job. The path is
// therefore resolved below the machine's root and through no magic link, so
// that it cannot lead to a socket of the host, and what it leads to must be a
// socket in memory, as all of /run is.
func Machine(ctx context.Context, leader host.Process, owner int) (*Bus, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, AnswerLimit, errNoAnswer)
	defer cancel()
	type result struct {
		bus *Bus
		err error
	}
	done := make(chan result, 1)
	go func() {
		// This goroutine's thread is never unlocked, so that it ends with it:
		// it has changed its user.
		runtime.LockOSThread()
		bus, err := dialMachine(ctx, leader, owner)
		done <- result{bus, err}
	}()
	select {
	case r := <-done:
		if ctx.Err() != nil && r.err != nil {
			return nil, context.Cause(ctx)
		}
		return r.bus, r.err
	case <-ctx.Done():
		go func() {
			if r := <-done; r.bus != nil {
				r.bus.Close()
			}
		}()
		return nil, context.Cause(ctx)
	}
}

// openSocket opens a socket in a machine, for its path only.
//
// On the way there may be a FUSE of the job's, or an overlay on one, that never
// answers, and who asks it waits in the kernel until it is gone. So only what the
// kernel has in its cache is looked at, as everything in a tmpfs is.
func openSocket(root int, path string) (socket int, err error) {
	how := &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | resolveCached,
	}
	socket, err = unix.Openat2(root, path, how)
	for tries := 0; err == unix.EAGAIN && tries < 20; tries++ { // somebody mounts or renames
		time.Sleep(5 * time.Millisecond)
		socket, err = unix.Openat2(root, path, how)
	}
	if err == unix.EAGAIN {
		return -1, errNotInMemory
	}
	if err != nil {
		return -1, err
	}
	if err := isSocketInMemory(socket); err != nil {
		unix.Close(socket)
		return -1, err
	}
	return socket, nil
}

// resolveCached is RESOLVE_CACHED of openat2(2).
const resolveCached = 0x20

var errNotInMemory = errors.New("it is not there, or not in a tmpfs")

// A file's handle tells what kind of file system it is in, and the kernel makes it without
// asking that: name_to_handle_at(2), shmem_encode_fh in the kernel's mm/shmem.c. The mount
// table would tell too, but who reads one waits for all who change one on this host.
const (
	tmpfsHandle     = 1
	tmpfsHandleSize = 12
)

func isSocketInMemory(socket int) error {
	var st unix.Statx_t
	if err := unix.Statx(socket, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return errors.New("it is not a socket")
	}
	handle, _, err := unix.NameToHandleAt(socket, "", unix.AT_EMPTY_PATH)
	if err != nil || handle.Type() != tmpfsHandle || handle.Size() != tmpfsHandleSize {
		return errNotInMemory
	}
	return nil
}

// dialMachine connects and authenticates. It must run on a thread of its own.
func dialMachine(ctx context.Context, leader host.Process, owner int) (*Bus, error) {
	root, err := leader.Root()
	if err != nil {
		return nil, fmt.Errorf("%w: its first process is gone", ErrGone)
	}
	defer root.Close()
	socket, err := openSocket(int(root.Fd()), strings.TrimPrefix(hostSocket, "/"))
	if err != nil {
		return nil, fmt.Errorf("open the machine's bus socket: %w", err)
	}
	defer unix.Close(socket)
	// The bus asks the kernel who connects. The host's root has no name
	// inside the machine's user namespace, so connect as its root. The raw
	// call changes this thread only.
	if owner > 0 {
		keep := ^uintptr(0)
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, keep, uintptr(owner), keep); errno != 0 {
			return nil, fmt.Errorf("become user %d: %w", owner, errno)
		}
	}
	// What is sent out of band would otherwise be thrown away unseen: see link.
	inline := func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_OOBINLINE, 1) })
	}
	machine, err := (&net.Dialer{Control: inline}).DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d", socket))
	if err != nil {
		return nil, fmt.Errorf("connect to the machine's bus: %w", err)
	}
	link, err := newLink(machine.(*net.UnixConn))
	if err != nil {
		return nil, errors.Join(err, machine.Close())
	}
	conn, err := link.connect()
	if err != nil {
		return nil, errors.Join(err, link.Close())
	}
	if err := greet(ctx, conn, []dbus.Auth{dbus.AuthExternal("0")}); err != nil {
		if reason := link.reason(); !errors.Is(reason, ErrGone) {
			err = reason
		}
		return nil, fmt.Errorf("greet the machine's bus: %w", err)
	}
	return newBus(conn, link), nil
}
