package harness

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
)

// readiness is the socket on which a service says that it is up, as sd_notify
// (3) defines it.
type readiness struct {
	conn *net.UnixConn
}

// listenReadiness makes the socket at a path.
func listenReadiness(path string) (*readiness, error) {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("notify: %w", err)
	}
	return &readiness{conn}, os.Chmod(path, 0o600)
}

// ready is closed when READY=1 came, and never if the socket closes first.
func (r *readiness) ready() <-chan struct{} {
	up := make(chan struct{})
	go func() {
		message := make([]byte, 4096)
		for {
			n, err := r.conn.Read(message)
			if err != nil {
				return
			}
			if slices.Contains(strings.Split(string(message[:n]), "\n"), "READY=1") {
				close(up)
				return
			}
		}
	}()
	return up
}

// close ends the listening. Go unlinks no socket that it has not made by
// itself, so its directory is for others to remove.
func (r *readiness) close() { r.conn.Close() }
