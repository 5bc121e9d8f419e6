package systemd

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// ErrPassed is the cause of an error when a machine's bus passed us a descriptor,
// which none does that means well.
var ErrPassed = errors.New("its D-Bus passed a descriptor")

// link is a connection to a machine's bus, which may be a program of the job's. It
// passes descriptors, but takes none: who receives a file of a job's FUSE, or throws
// it away unseen, may wait in the kernel for the job's answer, and no signal ends that.
//
// So what comes is looked at before it is received. A descriptor stays where it is, in
// a connection that is never closed: see Holding.
//
// The D-Bus library knows how to pass descriptors over connections of its own only. To
// it this one is a stream of bytes.
type link struct {
	machine *net.UnixConn
	raw     syscall.RawConn // of machine
	in      *bufio.Reader   // of what is received
	left    uint64          // of the message that is being read

	mu      sync.Mutex
	lost    error            // why nothing is received any more
	passing map[uint32][]int // the descriptors of messages, by serial
}

func newLink(machine *net.UnixConn) (*link, error) {
	raw, err := machine.SyscallConn()
	if err != nil {
		return nil, err
	}
	l := &link{machine: machine, raw: raw, passing: map[uint32][]int{}}
	l.in = bufio.NewReaderSize(receiver{l}, 16<<10)
	return l, nil
}

// connect makes a connection of the library's.
func (l *link) connect() (*dbus.Conn, error) {
	return dbus.NewConn(l, dbus.WithOutgoingInterceptor(l.detach), dbus.WithIncomingInterceptor(ignore))
}

// ignore makes the library ignore that a bus wants something of us, who offer nothing:
// it would wait until its answer is read. It would also believe any signal of the bus
// itself, of which we want none.
func ignore(message *dbus.Message) {
	from, _ := message.Headers[dbus.FieldInterface].Value().(string)
	if message.Type == dbus.TypeMethodCall || message.Type == dbus.TypeSignal && from == "org.freedesktop.DBus" {
		message.Type = 0
	}
}

// longestMessage is many times what a machine's bus has to say to us. The library
// believes any length, also one that wraps around in 32 bits.
const longestMessage = 1 << 20

// Read reads a part of one message, or one of the lines with which connections begin.
func (l *link) Read(p []byte) (int, error) {
	if l.left == 0 {
		first, err := l.in.Peek(1)
		if err != nil {
			return 0, err
		}
		if first[0] != 'l' && first[0] != 'B' { // a message begins with its byte order
			line, err := l.in.ReadSlice('\n')
			if len(line) > len(p) {
				return 0, errors.New("its D-Bus greets without end")
			}
			return copy(p, line), err
		}
		head, err := l.in.Peek(16)
		if err != nil {
			return 0, err
		}
		if l.left = lengthOf(head); l.left > longestMessage {
			return 0, l.lose(fmt.Errorf("its D-Bus sent a message of %d bytes", l.left))
		}
	}
	n, err := l.in.Read(p[:min(uint64(len(p)), l.left)])
	l.left -= uint64(n)
	return n, err
}

// lengthOf is a message's length, of which its first 16 bytes tell.
func lengthOf(head []byte) uint64 {
	var order binary.ByteOrder = binary.LittleEndian
	if head[0] == 'B' {
		order = binary.BigEndian
	}
	body, fields := uint64(order.Uint32(head[4:])), uint64(order.Uint32(head[12:]))
	return 16 + (fields+7)/8*8 + body
}

// receiver receives what a link's machine sends, up to the first descriptor.
type receiver struct{ *link }

func (r receiver) Read(p []byte) (n int, err error) {
	waitErr := r.raw.Read(func(fd uintptr) bool {
		r.mu.Lock() // what was looked at is what is read
		defer r.mu.Unlock()
		var flags int
		n, _, flags, _, err = unix.Recvmsg(int(fd), p, nil, unix.MSG_PEEK)
		switch {
		case err == unix.EAGAIN || err == unix.EINTR:
			return false
		case err != nil:
			n = 0
		case flags&unix.MSG_CTRUNC != 0: // there is something besides
			n, err = 0, ErrPassed
		case n == 0:
			err = io.EOF
		default:
			n, err = unix.Read(int(fd), p[:n])
		}
		return true
	})
	if waitErr != nil {
		err = waitErr
	}
	if err != nil {
		return 0, r.lose(err)
	}
	return n, nil
}

// lose notes the first reason why the link is lost.
func (l *link) lose(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost == nil {
		l.lost = err
	}
	return err
}

// reason is why the link was lost.
func (l *link) reason() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errno unix.Errno
	if l.lost == nil || errors.Is(l.lost, io.EOF) || errors.As(l.lost, &errno) {
		return ErrGone
	}
	return l.lost
}

// detach takes a message's descriptors out of it before the library sees them.
func (l *link) detach(message *dbus.Message) {
	var descriptors []int
	for i, value := range message.Body {
		properties, ok := value.([]Property)
		if !ok {
			continue
		}
		numbered := make([]Property, len(properties))
		for j, property := range properties {
			if descriptor, ok := property.Value.Value().(dbus.UnixFD); ok {
				property = Set(property.Name, dbus.UnixFDIndex(len(descriptors)))
				descriptors = append(descriptors, int(descriptor))
			}
			numbered[j] = property
		}
		message.Body[i] = numbered
	}
	if len(descriptors) == 0 {
		return
	}
	message.Headers[dbus.FieldUnixFDs] = dbus.MakeVariant(uint32(len(descriptors)))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.passing[message.Serial()] = descriptors
}

// begin is the last line of a greeting.
var begin = []byte("BEGIN\r\n")

// Write sends one message, with its descriptors, or one line.
func (l *link) Write(p []byte) (int, error) {
	// A bus that does not read must not keep us from closing the connection.
	if err := l.machine.SetWriteDeadline(time.Now().Add(AnswerLimit)); err != nil {
		return 0, err
	}
	if bytes.Equal(p, begin) {
		if err := l.negotiate(); err != nil {
			return 0, err
		}
	}
	descriptors := l.descriptorsOf(p)
	if len(descriptors) == 0 {
		return l.machine.Write(p)
	}
	n, _, err := l.machine.WriteMsgUnix(p, unix.UnixRights(descriptors...), nil)
	if err != nil || n == len(p) {
		return n, err
	}
	rest, err := l.machine.Write(p[n:])
	return n + rest, err
}

// negotiate asks whether descriptors may be passed.
func (l *link) negotiate() error {
	if _, err := l.machine.Write([]byte("NEGOTIATE_UNIX_FD\r\n")); err != nil {
		return err
	}
	answer, err := l.in.ReadSlice('\n')
	if err == nil && !bytes.HasPrefix(answer, []byte("AGREE_UNIX_FD")) {
		err = errors.New("its D-Bus takes no descriptors")
	}
	return err
}

func (l *link) descriptorsOf(p []byte) []int {
	if len(p) < 16 {
		return nil
	}
	serial := binary.NativeEndian.Uint32(p[8:])
	l.mu.Lock()
	defer l.mu.Unlock()
	descriptors := l.passing[serial]
	delete(l.passing, serial)
	return descriptors
}

// Close ends the link. To close a connection is to throw away what is in it; so
// nothing may come any more, and what has come is looked at.
func (l *link) Close() error {
	if err := l.raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) }); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, receiver{l}); errors.Is(err, ErrPassed) {
		hold(l.machine)
		return nil
	}
	return l.machine.Close()
}

var (
	heldMu sync.Mutex
	held   []*net.UnixConn
)

func hold(conn *net.UnixConn) {
	heldMu.Lock()
	defer heldMu.Unlock()
	held = append(held, conn)
}

// Holding says whether there are connections in which a machine's bus passed a
// descriptor. They are closed when this process ends, which must not be before the
// machine is gone: until then its end is in the job's hands.
func Holding() bool {
	heldMu.Lock()
	defer heldMu.Unlock()
	return len(held) > 0
}
