// Package systemd talks to service managers over D-Bus: to the host's, which
// runs the machines, and to each machine's own, which runs the job's scripts.
//
// Both speak org.freedesktop.systemd1(5). The host's bus is trusted. A
// machine's bus belongs to the job, which is root there: what it answers is
// believed only as far as it concerns the job itself, its socket is reached
// without following a link out of the machine (see Machine), and nothing waits
// for it without a limit.
package systemd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/godbus/dbus/v5"
)

const (
	destination = "org.freedesktop.systemd1"
	managerPath = dbus.ObjectPath("/org/freedesktop/systemd1")
	manager     = destination + ".Manager."
	hostSocket  = "/run/dbus/system_bus_socket"
)

// Bus is a connection to one service manager.
type Bus struct {
	conn *dbus.Conn
	link *link // of a machine's bus

	mu       sync.Mutex
	watchers []*watcher
	gone     chan struct{}
}

// Host connects to the host's service manager.
func Host(ctx context.Context) (*Bus, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, AnswerLimit, errNoAnswer)
	defer cancel()
	conn, err := dbus.Dial("unix:path=" + hostSocket)
	if err == nil {
		err = greet(ctx, conn, nil)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to the host's system bus: %w", err)
	}
	return newBus(conn, nil), nil
}

// greet introduces us to the bus at the other end of a connection, which may be one
// that never answers, and closes the connection when that fails.
func greet(ctx context.Context, conn *dbus.Conn, methods []dbus.Auth) error {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	err := conn.Auth(methods)
	if err == nil {
		err = conn.Hello()
	}
	if err != nil {
		conn.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}
	return err
}

func newBus(conn *dbus.Conn, link *link) *Bus {
	b := &Bus{conn: conn, link: link, gone: make(chan struct{})}
	signals := make(chan *dbus.Signal, 64)
	conn.Signal(signals)
	go b.dispatch(signals)
	return b
}

// Close ends the connection.
func (b *Bus) Close() { b.conn.Close() }

// lost is why the connection is.
func (b *Bus) lost() error {
	if b.link != nil {
		return b.link.reason()
	}
	return ErrGone
}

// dispatch hands signals to their watchers, until the connection is closed.
func (b *Bus) dispatch(signals <-chan *dbus.Signal) {
	for signal := range signals {
		b.mu.Lock()
		for _, w := range b.watchers {
			if w.path == signal.Path && w.member == signal.Name {
				w.pending.push(eventOf(signal))
			}
		}
		b.mu.Unlock()
	}
	close(b.gone)
}

// event is what is kept of a signal. A machine's bus may send signals of a
// hundred megabytes without end; these few words are all that anybody wants.
type event struct {
	job, result string // of JobRemoved
	state       string // ActiveState, of PropertiesChanged
}

func eventOf(signal *dbus.Signal) *event {
	e := &event{}
	word := func(value any) string {
		switch v := value.(type) {
		case string:
			return v[:min(len(v), 256)]
		case dbus.ObjectPath:
			return string(v[:min(len(v), 256)])
		}
		return ""
	}
	switch len(signal.Body) {
	case 4:
		e.job, e.result = word(signal.Body[1]), word(signal.Body[3])
	case 3:
		if changed, ok := signal.Body[1].(map[string]dbus.Variant); ok {
			e.state = word(changed["ActiveState"].Value())
		}
	}
	return e
}

// watcher receives the signals of one member at one path.
type watcher struct {
	path    dbus.ObjectPath
	member  string
	pending queue
}

// watch asks for signals: rule is a D-Bus match rule. The request is sent
// before anything sent later, and not waited for: buses keep the order.
func (b *Bus) watch(path dbus.ObjectPath, iface, member, rule string) *watcher {
	w := &watcher{path: path, member: iface + "." + member, pending: newQueue()}
	b.mu.Lock()
	b.watchers = append(b.watchers, w)
	b.mu.Unlock()
	rule = fmt.Sprintf("type='signal',path='%s',interface='%s',member='%s'%s", path, iface, member, rule)
	b.conn.BusObject().Go("org.freedesktop.DBus.AddMatch", dbus.FlagNoReplyExpected, nil, rule)
	return w
}

// next waits for the watcher's next signal.
func (b *Bus) next(ctx context.Context, w *watcher) (*event, error) {
	for {
		if e := w.pending.pop(); e != nil {
			return e, nil
		}
		select {
		case <-w.pending.more:
		case <-b.gone:
			// What arrived before the end counts.
			if e := w.pending.pop(); e != nil {
				return e, nil
			}
			return nil, b.lost()
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// queue is a list of events with a bell. It drops the oldest beyond its limit.
type queue struct {
	mu     *sync.Mutex
	events []*event
	more   chan struct{}
}

func newQueue() queue { return queue{mu: new(sync.Mutex), more: make(chan struct{}, 1)} }

func (q *queue) push(e *event) {
	q.mu.Lock()
	q.events = append(q.events, e)
	if len(q.events) > 1024 {
		q.events = q.events[1:]
	}
	q.mu.Unlock()
	select {
	case q.more <- struct{}{}:
	default:
	}
}

func (q *queue) pop() *event {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.events) == 0 {
		return nil
	}
	e := q.events[0]
	q.events = q.events[1:]
	return e
}

// call calls a method of an object of systemd's and stores the reply.
func (b *Bus) call(ctx context.Context, path dbus.ObjectPath, method string, out []any, args ...any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, AnswerLimit, errNoAnswer)
	defer cancel()
	call := b.conn.Object(destination, path).CallWithContext(ctx, method, 0, args...)
	if err := call.Err; err != nil {
		return b.explain(ctx, err)
	}
	if err := call.Store(out...); err != nil {
		return fmt.Errorf("unexpected answer to %s: %w", method, err)
	}
	return nil
}

// explain turns the errors of a dead connection into why it is lost, ErrGone mostly,
// and those of a dead context into its cause.
func (b *Bus) explain(ctx context.Context, err error) error {
	var remote dbus.Error
	switch {
	case errors.As(err, &remote):
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	default:
		return b.lost()
	}
}

// isError says whether err is the D-Bus error of that name.
func isError(err error, names ...string) bool {
	var remote dbus.Error
	if errors.As(err, &remote) {
		for _, name := range names {
			if remote.Name == name {
				return true
			}
		}
	}
	return false
}

// IsNoSuchUnit says whether err means that the unit, or the machine, is not there.
func IsNoSuchUnit(err error) bool {
	return isError(err, destination+".NoSuchUnit", "org.freedesktop.machine1.NoSuchMachine")
}

// IsAway says whether err means that the bus or the service manager was not there:
// it is being restarted, and so comes back soon. What was asked of it may have been
// done or not.
func IsAway(err error) bool {
	var network *net.OpError // of a dial
	return errors.Is(err, ErrGone) || errors.Is(err, dbus.ErrClosed) || errors.Is(err, io.EOF) || errors.As(err, &network) ||
		isError(err, "org.freedesktop.DBus.Error.NoReply", "org.freedesktop.DBus.Error.Disconnected",
			"org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner",
			"org.freedesktop.DBus.Error.Spawn.ChildExited") // there is a name systemd1 that starts /bin/false
}
