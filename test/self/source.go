package self

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"

	"nspawn-runner/test/harness"
)

// serveSource serves what is committed, as branch main of a bare repository in
// the cache, which git fetches from plain files. Jobs reach it under the URL: a lab
// has this machine's network, and what is not its loopback is open to machines.
func serveSource(ctx context.Context) (url string, server *http.Server, err error) {
	cache, err := harness.CacheDir()
	if err != nil {
		return "", nil, err
	}
	dir := filepath.Join(cache, "self", "source.git")
	for _, argv := range [][]string{
		{"git", "init", "--quiet", "--bare", dir},
		{"git", "push", "--quiet", "--force", dir, "HEAD:refs/heads/main"},
		{"git", "-C", dir, "update-server-info"},
	} {
		if out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
			return "", nil, fmt.Errorf("source: %v: %w\n%s", argv, err, out)
		}
	}
	// Nothing is sent: this asks the kernel for the address towards the world.
	world, err := net.Dial("udp", "192.0.2.1:9")
	if err != nil {
		return "", nil, fmt.Errorf("source: %w", err)
	}
	defer world.Close()
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: world.LocalAddr().(*net.UDPAddr).IP})
	if err != nil {
		return "", nil, fmt.Errorf("source: %w", err)
	}
	server = &http.Server{Handler: http.FileServerFS(os.DirFS(dir))}
	go server.Serve(listener)
	return "http://" + listener.Addr().String() + "/", server, nil
}
