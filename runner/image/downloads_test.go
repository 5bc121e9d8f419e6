package image

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// mirror is an HTTP proxy that knows one mirror, http://mirror.example, and notes
// what it is asked for.
type mirror struct {
	server *httptest.Server
	mu     sync.Mutex
	asked  []string
	files  map[string]string
}

func newMirror(t *testing.T) *mirror {
	m := &mirror{files: map[string]string{}}
	m.server = httptest.NewServer(m)
	t.Cleanup(m.server.Close)
	return m
}

func (m *mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, r.URL.String())
	text, ok := m.files[r.URL.Path]
	if r.URL.Host != "mirror.example" || !ok {
		http.NotFound(w, r)
		return
	}
	if strings.HasPrefix(r.URL.Path, "/cut/") {
		w.Header().Set("Content-Length", strconv.Itoa(2*len(text)))
	}
	w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
	_, _ = io.WriteString(w, text)
}

// store is a store whose builds reach the mirror.
func (m *mirror) store(t *testing.T) *Store {
	return &Store{StateDir: t.TempDir(), DownloadsMax: 1 << 20, Environment: map[string]string{"http_proxy": m.server.URL}}
}

// step asks for paths of the mirror, as one step of a build.
func (m *mirror) step(t *testing.T, s *Store, paths ...string) (answers []string) {
	t.Helper()
	var log strings.Builder
	d, err := s.openDownloads(&log, onLoopback)
	if err != nil {
		t.Fatal(err)
	}
	address, err := url.Parse(d.address)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{Proxy: http.ProxyURL(address)}
	for _, path := range paths {
		answer, err := (&http.Client{Transport: transport}).Get("http://mirror.example" + path)
		if err != nil { // an answer that was cut may be none at all
			answers = append(answers, err.Error())
			continue
		}
		text, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil {
			text = []byte(err.Error())
		}
		if when := answer.Header.Get("Last-Modified"); answer.StatusCode == 200 && when != "Mon, 02 Jan 2006 15:04:05 GMT" {
			t.Errorf("%s is of %q", path, when)
		}
		answers = append(answers, fmt.Sprint(answer.StatusCode, " ", string(text)))
	}
	transport.CloseIdleConnections()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return answers
}

func (m *mirror) wantAsked(t *testing.T, paths ...string) {
	t.Helper()
	want := ""
	for _, path := range paths {
		want += "http://mirror.example" + path + " "
	}
	if got := strings.Join(append(m.asked, ""), " "); got != want {
		t.Errorf("the mirror was asked for %s\nnot %s", got, want)
	}
	m.asked = nil
}

func TestPackagesAndListsAreDownloadedOnce(t *testing.T) {
	m := newMirror(t)
	s := m.store(t)
	list := fmt.Sprintf("/dists/sid/main/by-hash/SHA256/%x", sha256.Sum256([]byte("list")))
	m.files = map[string]string{"/pool/a_1%3a2_all.deb": "", "/pool/a.deb": "package", list: "list", "/dists/sid/InRelease": "one"}
	paths := []string{"/pool/a.deb", list, "/dists/sid/InRelease", "/pool/none.deb"}
	m.step(t, s, paths...)
	m.wantAsked(t, paths...)
	m.files["/dists/sid/InRelease"] = "two"
	got := m.step(t, s, paths...)
	m.wantAsked(t, "/dists/sid/InRelease", "/pool/none.deb")
	if want := "200 package|200 list|200 two|404 404 page not found\n"; strings.Join(got, "|") != want {
		t.Errorf("got %q", got)
	}
}

func TestSpoiledDownloadIsFetchedAgain(t *testing.T) {
	m := newMirror(t)
	s := m.store(t)
	m.files["/pool/a.deb"] = "package"
	m.step(t, s, "/pool/a.deb")
	kept, _ := filepath.Glob(filepath.Join(s.StateDir, ".downloads/*"))
	if len(kept) != 1 {
		t.Fatalf("kept %q", kept)
	}
	whole := read(t, kept[0])
	for _, spoiled := range []string{"", whole[:len(whole)-1], whole[:len(whole)-1] + "x", whole[:10]} {
		m.asked = nil
		write(t, kept[0], spoiled)
		if got := m.step(t, s, "/pool/a.deb"); got[0] != "200 package" {
			t.Errorf("got %q", got)
		}
		m.wantAsked(t, "/pool/a.deb")
		m.step(t, s, "/pool/a.deb")
		m.wantAsked(t)
	}
}

func TestWhoAsksAgainGetsTheMirrorsOwn(t *testing.T) {
	m := newMirror(t)
	s := m.store(t)
	m.files["/pool/a.deb"] = "bad"
	m.step(t, s, "/pool/a.deb")
	m.files["/pool/a.deb"] = "good"
	if got := m.step(t, s, "/pool/a.deb", "/pool/a.deb"); got[0] != "200 bad" || got[1] != "200 good" {
		t.Errorf("got %q", got)
	}
	if got := m.step(t, s, "/pool/a.deb"); got[0] != "200 good" {
		t.Errorf("then got %q", got)
	}
}

func TestHalfADownloadAndAFalseListAreNotKept(t *testing.T) {
	m := newMirror(t)
	s := m.store(t)
	m.files["/cut/a.deb"], m.files["/by-hash/SHA256/abc"] = "package", "not abc"
	if got := m.step(t, s, "/cut/a.deb", "/by-hash/SHA256/abc"); !strings.Contains(got[0], "EOF") || got[1] != "200 not abc" {
		t.Errorf("got %q", got)
	}
	if kept, _ := os.ReadDir(filepath.Join(s.StateDir, ".downloads")); len(kept) != 0 {
		t.Errorf("kept %v", kept)
	}
}

func TestWhyAMirrorWasNotReachedIsInTheLineThatAptPrints(t *testing.T) {
	for _, name := range []string{"http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"} {
		t.Setenv(name, "")
	}
	d, err := (&Store{StateDir: t.TempDir(), DownloadsMax: 1 << 20}).openDownloads(io.Discard, onLoopback)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	address, err := url.Parse(d.address)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(address)}}
	answer, err := client.Get("http://192.0.2.1:0/debian/")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if !strings.HasPrefix(answer.Status, "502 dial tcp 192.0.2.1:0: ") {
		t.Error(answer.Status)
	}
}

func TestProxyIsForItsBuildOnly(t *testing.T) {
	m := newMirror(t)
	d, err := m.store(t).openDownloads(io.Discard, onLoopback)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	address, err := url.Parse(d.address)
	if err != nil {
		t.Fatal(err)
	}
	for _, user := range []*url.Userinfo{nil, url.UserPassword("build", "guessed")} {
		address.User = user
		client := http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(address)}}
		answer, err := client.Get("http://mirror.example/pool/a.deb")
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusProxyAuthRequired {
			t.Errorf("%v: %s", user, answer.Status)
		}
	}
	m.wantAsked(t)
}

func TestWhatWasNotUsedForLongestGoesFirst(t *testing.T) {
	m := newMirror(t)
	s := m.store(t)
	for _, name := range []string{"a", "b", "c"} {
		m.files["/pool/"+name+".deb"] = strings.Repeat(name, 1000)
	}
	m.step(t, s, "/pool/a.deb")
	m.step(t, s, "/pool/b.deb")
	m.step(t, s, "/pool/a.deb")
	old := time.Now().Add(-2 * time.Hour)
	for name, when := range map[string]time.Time{".new-1": old, ".new-2": time.Now()} { // of a killed build, of one that goes on
		path := filepath.Join(s.StateDir, ".downloads", name)
		write(t, path, "half")
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
	}
	s.DownloadsMax = 2500
	m.step(t, s, "/pool/c.deb")
	m.asked = nil
	m.step(t, s, "/pool/a.deb", "/pool/c.deb")
	m.wantAsked(t)
	m.step(t, s, "/pool/b.deb")
	m.wantAsked(t, "/pool/b.deb")
	if entries, _ := filepath.Glob(filepath.Join(s.StateDir, ".downloads/.new-*")); len(entries) != 1 {
		t.Errorf("unfinished downloads: %q", entries)
	}
	s.DownloadsMax = 0
	if d, err := s.openDownloads(io.Discard, onLoopback); d != nil || err != nil {
		t.Errorf("without a cache: %v, %v", d, err)
	}
	if entries, _ := filepath.Glob(filepath.Join(s.StateDir, ".downloads/[^.]*")); len(entries) != 0 {
		t.Errorf("it was switched off, and keeps %q", entries)
	}
}

func TestProgramsOfABuildUseTheProxyAndTheImageForgetsIt(t *testing.T) {
	s, _ := fakeStore(t, "sid", "- hosts: all\n  fake: cp $1/etc/apt/apt.conf.d/00nspawn-runner $1/etc/lent\n")
	s.DownloadsMax = 1 << 20
	t.Setenv("FAKE_BOOTSTRAP", `echo "$http_proxy" > "$root/etc/proxy"`)
	generation := create(t, s, "sid")
	const proxy = "http://build:"
	if got := read(t, filepath.Join(generation.Path, "etc/proxy")); !strings.HasPrefix(got, proxy) {
		t.Errorf("the bootstrap's proxy was %q", got)
	}
	got := read(t, filepath.Join(generation.Path, "etc/lent"))
	if !strings.Contains(got, `Acquire::http::Proxy "`+proxy) || !strings.Contains(got, `Acquire::https::Proxy "DIRECT"`) {
		t.Errorf("apt's was %q", got)
	}
	if exists(filepath.Join(generation.Path, "etc/apt/apt.conf.d/00nspawn-runner")) {
		t.Error("it is still in the image")
	}
}

func TestPackagesThatAptRejectsAreForgotten(t *testing.T) {
	s, _ := fakeStore(t)
	s.DownloadsMax = 1 << 20
	b := &build{store: s}
	var err error
	if b.log, err = s.openLog(Generation{Name: "sid/20060102T150405Z"}); err != nil {
		t.Fatal(err)
	}
	defer b.log.Close()
	kept := downloadCache{dir: filepath.Join(s.StateDir, ".downloads")}.path("http://mirror.example/a.deb")
	for said, want := range map[string]bool{"E: No space left\n": true, "E: Failed to fetch a.deb  Hash Sum mismatch\n": false} {
		write(t, kept, "kept")
		_ = b.download(onLoopback, func(d *downloads) error {
			d.served["http://mirror.example/a.deb"] = true
			fmt.Fprint(b.log, said)
			return io.ErrUnexpectedEOF
		})
		if exists(kept) != want {
			t.Errorf("after %q it is kept: %v", said, !want)
		}
		b.log.tail = nil
	}
}
