package self

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
)

// source is the repository as jobs fetch it: machines have their host's
// network, and a lab this machine's.
type source struct {
	url    string
	dir    string
	server http.Server
}

// serveSource serves what is committed, as branch main of a bare repository
// that git fetches from plain files.
func serveSource(ctx context.Context) (*source, error) {
	dir, err := os.MkdirTemp("", "nspawn-runner-source-")
	if err != nil {
		return nil, err
	}
	s := &source{dir: dir}
	for _, argv := range [][]string{
		{"git", "init", "--quiet", "--bare", dir},
		{"git", "push", "--quiet", dir, "HEAD:refs/heads/main"},
		{"git", "-C", dir, "update-server-info"},
	} {
		if out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
			return nil, errors.Join(fmt.Errorf("source: %v: %w\n%s", argv, err, out), s.close())
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("source: %w", err), s.close())
	}
	s.url = "http://" + listener.Addr().String() + "/"
	s.server.Handler = http.FileServerFS(os.DirFS(dir))
	go s.server.Serve(listener)
	return s, nil
}

// close ends the serving and removes the copy.
func (s *source) close() error { return errors.Join(s.server.Close(), os.RemoveAll(s.dir)) }
