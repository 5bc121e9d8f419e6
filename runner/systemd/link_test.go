package systemd

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// linked is a link, and what is at its other end.
func linked(t *testing.T) (*link, int) {
	t.Helper()
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(ends[1]) })
	if err := unix.SetsockoptInt(ends[0], unix.SOL_SOCKET, unix.SO_OOBINLINE, 1); err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(ends[0]), "")
	conn, err := net.FileConn(file)
	file.Close()
	if err != nil {
		t.Fatal(err)
	}
	l, err := newLink(conn.(*net.UnixConn))
	if err != nil {
		t.Fatal(err)
	}
	return l, ends[1]
}

func TestADescriptorIsNotReceived(t *testing.T) {
	for name, flags := range map[string]int{"in band": 0, "out of band": unix.MSG_OOB} {
		t.Run(name, func(t *testing.T) {
			l, bus := linked(t)
			null, err := os.Open("/dev/null")
			if err != nil {
				t.Fatal(err)
			}
			defer null.Close()
			if _, err := unix.Write(bus, []byte("OK\r\n")); err != nil {
				t.Fatal(err)
			}
			if err := unix.Sendmsg(bus, []byte("x"), unix.UnixRights(int(null.Fd())), nil, flags); err != nil {
				t.Fatal(err)
			}
			line := make([]byte, 100)
			if _, err := io.ReadFull(l, line[:4]); err != nil && !errors.Is(err, ErrPassed) {
				t.Errorf("what came before it: %v", err)
			}
			if n, err := l.Read(line); !errors.Is(err, ErrPassed) {
				t.Errorf("%q, %v", line[:n], err)
			}
			if l.Close(); !Holding() {
				t.Error("the connection was closed")
			}
		})
	}
}

func TestAMessageOfAnyLengthIsNotBelieved(t *testing.T) {
	for _, head := range []string{
		"l\x02\x01\x01\xc0\xff\xff\xff\x01\x00\x00\x00\x18\x00\x00\x00", // wraps around in 32 bits
		"B\x02\x01\x01\x01\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x18",
	} {
		l, bus := linked(t)
		if _, err := unix.Write(bus, []byte(head)); err != nil {
			t.Fatal(err)
		}
		if n, err := l.Read(make([]byte, 100)); err == nil {
			t.Errorf("%d bytes of %q", n, head)
		}
		l.Close()
	}
}
