package oci

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	server "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"nspawn-runner/runner/oci/unpack"
)

// TestMain makes the test binary the process that unpacks, or an operation that is killed.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == unpack.Command {
		if err := unpack.Run(os.Args[2:], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv("TEST_KILL_AT") != "" {
		killedPull()
		os.Exit(0)
	}
	quickly = time.Minute // the machine may be busy
	os.Exit(m.Run())
}

// hub is a registry in memory.
type hub struct {
	*httptest.Server
	host string

	mu sync.Mutex
	// before, if set, may answer a request; it returns true if it has.
	before func(http.ResponseWriter, *http.Request) bool
	asked  []string // METHOD PATH of each request
}

func newHub(t *testing.T) *hub {
	t.Helper()
	h := &hub{}
	inner := server.New(server.Logger(log.New(io.Discard, "", 0)))
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		before := h.before
		h.asked = append(h.asked, r.Method+" "+r.URL.Path)
		h.mu.Unlock()
		if before == nil || !before(w, r) {
			inner.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(h.Close)
	h.host = strings.TrimPrefix(h.URL, "http://")
	return h
}

// intercept has a function see all requests first.
func (h *hub) intercept(before func(http.ResponseWriter, *http.Request) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.before = before
}

// requests returns what was asked since the last call.
func (h *hub) requests() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	asked := h.asked
	h.asked = nil
	return asked
}

// count is how many of them are for a part of a path.
func count(requests []string, what string) (n int) {
	for _, r := range requests {
		if strings.Contains(r, what) {
			n++
		}
	}
	return n
}

// layerOf is a layer with files, NAME and content by turns.
func layerOf(t *testing.T, files ...string) v1.Layer {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for i := 0; i < len(files); i += 2 {
		if err := w.WriteHeader(&tar.Header{Name: files[i], Mode: 0o755, Typeflag: tar.TypeReg, Size: int64(len(files[i+1]))}); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(w, files[i+1])
	}
	_ = w.Close()
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(out.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	return layer
}

// imageOf is an image for this host with one layer for each list of files.
func imageOf(t *testing.T, layers ...[]string) v1.Image {
	t.Helper()
	image, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: runtime.GOARCH, RootFS: v1.RootFS{Type: "layers"}, Config: v1.Config{
		Entrypoint: []string{"/entry"}, Cmd: []string{"run"}, Env: []string{"A=1"}, User: "70:70", WorkingDir: "/srv", StopSignal: "SIGINT",
		ExposedPorts: map[string]struct{}{"5432/tcp": {}, "53/udp": {}, "80": {}, "x/tcp": {}, "0": {}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, files := range layers {
		if image, err = mutate.AppendLayers(image, layerOf(t, files...)); err != nil {
			t.Fatal(err)
		}
	}
	return image
}

// push puts an image into the registry, and returns its whole reference.
func (h *hub) push(t *testing.T, to string, image v1.Image) string {
	t.Helper()
	ref, err := name.ParseReference(h.host+"/"+to, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, image); err != nil {
		t.Fatal(err)
	}
	h.requests()
	return ref.Name()
}

// storeOf is a store that may pull all images, from these registries without TLS.
func storeOf(t *testing.T, hubs ...*hub) (*Store, *notes) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("unpacking needs root: the tree has files of many users")
	}
	top := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	n := &notes{}
	s := &Store{
		Dir: filepath.Join(top, ".oci"), Trash: filepath.Join(top, ".trash"), Program: self,
		Rules: Rules{Images: []string{"*"}}, CacheMax: 1 << 30, ImageMax: 64 << 20,
		Environment: func(string) string { return "" },
		Progress:    n.add,
		InUse:       func(string) bool { return false },
	}
	for _, h := range hubs {
		s.Rules.Insecure = append(s.Rules.Insecure, h.host)
	}
	return s, n
}

// notes are what a store told.
type notes struct {
	mu  sync.Mutex
	all []string
}

func (n *notes) add(e Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, e.Note)
}

// take returns what was told since the last call.
func (n *notes) take() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := n.all
	n.all = nil
	return strings.Join(all, "\n")
}

// peek returns what was told, and leaves it.
func (n *notes) peek() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.all, "\n")
}

// get gets an image and lets it go.
func get(t *testing.T, s *Store, r Request) Image {
	t.Helper()
	image, release, err := s.Get(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	release()
	return image
}

func text(t *testing.T, i Image, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(i.Path, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// wantTidy checks that a store has nothing but whole images, their names and its locks.
func wantTidy(t *testing.T, s *Store) {
	t.Helper()
	entries, err := os.ReadDir(s.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		if wellFormed.MatchString(e.Name()) {
			if _, err := s.image(strings.Replace(e.Name(), "-", ":", 1), nil); err != nil {
				t.Errorf("%s: %v", e.Name(), err)
			}
		} else if !slices.Contains([]string{".pulls", ".names"}, e.Name()) {
			t.Errorf("left is %s", e.Name())
		}
	}
	for _, dir := range []string{s.pulls(), s.Trash} {
		if entries, _ := os.ReadDir(dir); len(entries) > 0 {
			t.Errorf("left in %s: %v", filepath.Base(dir), entries)
		}
	}
}
