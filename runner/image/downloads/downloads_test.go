package downloads

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
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

func newCache(t *testing.T) Cache {
	return Cache{Dir: filepath.Join(t.TempDir(), "cache"), Max: 1 << 20}
}

func onLoopback() (net.Listener, error) { return net.Listen("tcp", AnyPort) }

// serve starts a proxy that reaches the mirror, and returns its address.
func (m *mirror) serve(t *testing.T, c Cache) (*Proxy, *url.URL) {
	t.Helper()
	p, err := c.Serve(onLoopback, map[string]string{"http_proxy": m.server.URL}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return p, addressOf(t, p)
}

func addressOf(t *testing.T, p *Proxy) *url.URL {
	t.Helper()
	value, is := strings.CutPrefix(p.Environment()[0], "http_proxy=")
	address, err := url.Parse(value)
	if err != nil || !is {
		t.Fatalf("%q, %v", p.Environment(), err)
	}
	return address
}

// step asks for paths of the mirror, as one step of a build.
func (m *mirror) step(t *testing.T, c Cache, paths ...string) (answers []string) {
	t.Helper()
	p, address := m.serve(t, c)
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
	if err := p.Close(); err != nil {
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
	c := newCache(t)
	list := fmt.Sprintf("/dists/sid/main/by-hash/SHA256/%x", sha256.Sum256([]byte("list")))
	m.files = map[string]string{"/pool/a_1%3a2_all.deb": "", "/pool/a.deb": "package", list: "list", "/dists/sid/InRelease": "one"}
	paths := []string{"/pool/a.deb", list, "/dists/sid/InRelease", "/pool/none.deb"}
	m.step(t, c, paths...)
	m.wantAsked(t, paths...)
	m.files["/dists/sid/InRelease"] = "two"
	got := m.step(t, c, paths...)
	m.wantAsked(t, "/dists/sid/InRelease", "/pool/none.deb")
	if want := "200 package|200 list|200 two|404 404 page not found\n"; strings.Join(got, "|") != want {
		t.Errorf("got %q", got)
	}
}

func TestSpoiledDownloadIsFetchedAgain(t *testing.T) {
	m := newMirror(t)
	c := newCache(t)
	m.files["/pool/a.deb"] = "package"
	m.step(t, c, "/pool/a.deb")
	kept, _ := filepath.Glob(filepath.Join(c.Dir, "*"))
	if len(kept) != 1 {
		t.Fatalf("kept %q", kept)
	}
	text, err := os.ReadFile(kept[0])
	if err != nil {
		t.Fatal(err)
	}
	whole := string(text)
	for _, spoiled := range []string{"", whole[:len(whole)-1], whole[:len(whole)-1] + "x", whole[:10]} {
		m.asked = nil
		if err := os.WriteFile(kept[0], []byte(spoiled), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := m.step(t, c, "/pool/a.deb"); got[0] != "200 package" {
			t.Errorf("got %q", got)
		}
		m.wantAsked(t, "/pool/a.deb")
		m.step(t, c, "/pool/a.deb")
		m.wantAsked(t)
	}
}

func TestWhatAptRejectsIsFetchedAgain(t *testing.T) {
	m := newMirror(t)
	c := newCache(t)
	m.files["/pool/a.deb"], m.files["/pool/b.deb"] = "bad", "good"
	m.step(t, c, "/pool/a.deb", "/pool/b.deb")
	p, address := m.serve(t, c)
	client := http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(address)}}
	answer, err := client.Get("http://mirror.example/pool/a.deb")
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	p.Reject()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	m.asked = nil
	m.step(t, c, "/pool/a.deb", "/pool/b.deb")
	m.wantAsked(t, "/pool/a.deb")
}

func TestWhoAsksAgainGetsTheMirrorsOwn(t *testing.T) {
	m := newMirror(t)
	c := newCache(t)
	m.files["/pool/a.deb"] = "bad"
	m.step(t, c, "/pool/a.deb")
	m.files["/pool/a.deb"] = "good"
	if got := m.step(t, c, "/pool/a.deb", "/pool/a.deb"); got[0] != "200 bad" || got[1] != "200 good" {
		t.Errorf("got %q", got)
	}
	if got := m.step(t, c, "/pool/a.deb"); got[0] != "200 good" {
		t.Errorf("then got %q", got)
	}
}

func TestHalfADownloadAndAFalseListAreNotKept(t *testing.T) {
	m := newMirror(t)
	c := newCache(t)
	m.files["/cut/a.deb"], m.files["/by-hash/SHA256/abc"] = "package", "not abc"
	if got := m.step(t, c, "/cut/a.deb", "/by-hash/SHA256/abc"); !strings.Contains(got[0], "EOF") || got[1] != "200 not abc" {
		t.Errorf("got %q", got)
	}
	if kept, _ := os.ReadDir(c.Dir); len(kept) != 0 {
		t.Errorf("kept %v", kept)
	}
}

func TestWhyAMirrorWasNotReachedIsInTheLineThatAptPrints(t *testing.T) {
	for _, name := range []string{"http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"} {
		t.Setenv(name, "")
	}
	p, err := newCache(t).Serve(onLoopback, nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	address := addressOf(t, p)
	client := http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(address)}}
	answer, err := client.Get("http://192.0.2.1:0/debian/")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if !strings.HasPrefix(answer.Status, "502 dial tcp 192.0.2.1:0: ") {
		t.Error(answer.Status)
	}
	missed := errors.New("task: E: Unable to locate package hello")
	if err := p.Explain(missed); !errors.Is(err, missed) || !strings.Contains(err.Error(), "hello; downloads failed: dial tcp 192.0.2.1:0: ") {
		t.Errorf("a failure that does not say why: %v", err)
	}
	said := errors.New("E: Failed to fetch: " + answer.Status)
	if err := p.Explain(said); err != said {
		t.Errorf("a failure that says so itself: %v", err)
	}
	if err := p.Explain(nil); err != nil {
		t.Errorf("no failure: %v", err)
	}
}

func TestProxyIsForItsBuildOnly(t *testing.T) {
	m := newMirror(t)
	p, address := m.serve(t, newCache(t))
	defer p.Close()
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
	c := newCache(t)
	for _, name := range []string{"a", "b", "c"} {
		m.files["/pool/"+name+".deb"] = strings.Repeat(name, 1000)
	}
	m.step(t, c, "/pool/a.deb")
	m.step(t, c, "/pool/b.deb")
	m.step(t, c, "/pool/a.deb")
	old := time.Now().Add(-2 * time.Hour)
	for name, when := range map[string]time.Time{".new-1": old, ".new-2": time.Now()} { // of a killed build, of one that goes on
		path := filepath.Join(c.Dir, name)
		if err := os.WriteFile(path, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
	}
	c.Max = 2500
	m.step(t, c, "/pool/c.deb")
	m.asked = nil
	m.step(t, c, "/pool/a.deb", "/pool/c.deb")
	m.wantAsked(t)
	m.step(t, c, "/pool/b.deb")
	m.wantAsked(t, "/pool/b.deb")
	if entries, _ := filepath.Glob(filepath.Join(c.Dir, ".new-*")); len(entries) != 1 {
		t.Errorf("unfinished downloads: %q", entries)
	}
	c.Max = 0
	if p, err := c.Serve(onLoopback, nil, io.Discard); p != nil || err != nil || p.Environment() != nil || p.AptConf() != nil {
		t.Errorf("without a cache: %v, %v", p, err)
	}
	if entries, _ := filepath.Glob(filepath.Join(c.Dir, "[^.]*")); len(entries) != 0 {
		t.Errorf("it was switched off, and keeps %q", entries)
	}
}
