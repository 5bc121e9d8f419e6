package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"golang.org/x/sys/unix"
)

func TestAttacksByTheAnswersOfARegistryAreHeld(t *testing.T) {
	endless := func(w http.ResponseWriter, r *http.Request) {
		for chunk := make([]byte, 1<<20); r.Context().Err() == nil; {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}
	isLayer := func(r *http.Request) bool { return r.Method == "GET" && strings.Contains(r.URL.Path, "/blobs/") }
	isManifest := func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/manifests/") }
	for what, test := range map[string]struct {
		on     func(*http.Request) bool
		answer func(w http.ResponseWriter, r *http.Request)
		says   string
	}{
		"an endless manifest": {isManifest, endless, "too long"},
		"an endless layer":    {isLayer, endless, "another size than it says"},
		"an endless error": {isManifest, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(404)
			endless(w, r)
		}, "byte limit"},
		"endless headers": {isManifest, func(w http.ResponseWriter, _ *http.Request) {
			for i := range 300 {
				w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("x", 1000))
			}
		}, "server response headers exceeded"},
		"a manifest that is no manifest": {isManifest, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			_, _ = io.WriteString(w, strings.Repeat("[", 100000))
		}, "exceeded max depth"},
		"a manifest of another digest": {isManifest, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			_, _ = io.WriteString(w, `{"layers":[]}`)
		}, "does not match requested digest"},
		"a layer of another digest": {isLayer, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "something else")
		}, "error verifying"},
		"a redirect in a circle": {isLayer, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
		}, "redirects more than"},
		"another protocol": {isLayer, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		}, "is not a protocol for registries"},
		"control characters in an error": {isManifest, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(400)
			_, _ = io.WriteString(w, "{\"errors\":[{\"code\":\"\x1b[31m\",\"message\":\"\x1b[31m\"}]}")
		}, "answers 400"},
	} {
		t.Run(what, func(t *testing.T) {
			h := newHub(t)
			s, _ := storeOf(t, h)
			s.ImageMax = 4 << 20
			ref := h.push(t, "x", imageOf(t, []string{"a", "1"}))
			if strings.Contains(what, "manifest of another digest") {
				image := get(t, s, Request{Name: ref})
				ref = h.host + "/x@" + image.Digest
			}
			h.intercept(func(w http.ResponseWriter, r *http.Request) bool {
				if !test.on(r) {
					return false
				}
				test.answer(w, r)
				return true
			})
			_, _, err := s.Get(t.Context(), Request{Name: ref, Policies: []Policy{Always}})
			if err == nil || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "\x1b") {
				t.Error(err)
			}
			wantTidy(t, s)
		})
	}
}

func TestAManifestIsBoundedWhateverItsRepositoryIsCalled(t *testing.T) {
	h := newHub(t)
	s, _ := storeOf(t, h)
	h.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/manifests/") {
			return false
		}
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		_, _ = w.Write(make([]byte, 2*maxAnswer))
		return true
	})
	for _, repository := range []string{"x", "a/blobs/x", "blobs/manifests/blobs"} {
		if _, _, err := s.Get(t.Context(), Request{Name: h.host + "/" + repository}); err == nil || !strings.Contains(err.Error(), "too long") {
			t.Errorf("%s: %v", repository, err)
		}
	}
}

func TestAnImageThatIsAnnouncedTooLargeIsNotFetched(t *testing.T) {
	h := newHub(t)
	s, _ := storeOf(t, h)
	ref := h.push(t, "x", imageOf(t, []string{"a", strings.Repeat("random text ", 1000)}))
	s.ImageMax = 50
	if _, _, err := s.Get(t.Context(), Request{Name: ref}); err == nil || !strings.Contains(err.Error(), "oci_image_max") || count(h.requests(), "/blobs/") > 0 {
		t.Error(err)
	}
}

func TestAPullStopsWhenTheDiskGetsFull(t *testing.T) {
	h := newHub(t)
	s, _ := storeOf(t, h)
	ref := h.push(t, "x", imageOf(t, []string{"a", "1"}))
	s.MinFree = 1 << 62
	if _, _, err := s.Get(t.Context(), Request{Name: ref}); err == nil || !strings.Contains(err.Error(), "min_free_disk") {
		t.Error(err)
	}
	wantTidy(t, s)
}

func TestAPullStopsWhenTheDiskHasFewInodes(t *testing.T) {
	h := newHub(t)
	s, _ := storeOf(t, h)
	ref := h.push(t, "x", imageOf(t, []string{"a", "1"}))
	top := filepath.Dir(s.Dir)
	if err := unix.Mount("tmpfs", top, "tmpfs", 0, "nr_inodes=1000"); err != nil {
		t.Skip("this root cannot mount a tmpfs: ", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(top, unix.MNT_DETACH) })
	for i := range 960 {
		if err := os.WriteFile(filepath.Join(top, fmt.Sprint(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := s.Get(t.Context(), Request{Name: ref}); err == nil || !strings.Contains(err.Error(), "df -i") || WouldFailAgain(err) {
		t.Error(err)
	}
	wantTidy(t, s)
}

// slowReader gives one byte at a time.
type slowReader struct{ pause time.Duration }

func (s slowReader) Read(p []byte) (int, error) { time.Sleep(s.pause); return copy(p, "x"), nil }
func (s slowReader) Close() error               { return nil }

func TestAnAnswerThatDripsIsGivenUp(t *testing.T) {
	b := newSteadyBody(slowReader{time.Millisecond}, -1)
	b.left = 100 * time.Millisecond
	began := time.Now()
	if _, err := io.Copy(io.Discard, b); !errors.Is(err, errStalled) || time.Since(began) > 5*time.Second {
		t.Error(err)
	}
	reader, writer := io.Pipe()
	defer writer.Close()
	b = newSteadyBody(reader, -1)
	b.left = 100 * time.Millisecond
	if _, err := io.Copy(io.Discard, b); !errors.Is(err, errStalled) {
		t.Error(err)
	}
}

// victim is a service of the host's that nobody may be led to.
func victim(t *testing.T) (address string, reached *atomic.Int64) {
	reached = &atomic.Int64{}
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	t.Cleanup(s.Close)
	return s.URL, reached
}

func TestAttacksByLeadingToServicesOfTheHostAreHeld(t *testing.T) {
	target, reached := victim(t)
	port := target[strings.LastIndexByte(target, ':'):]
	isLayer := func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/blobs/") }
	isManifest := func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/manifests/") }
	isPing := func(r *http.Request) bool { return r.URL.Path == "/v2/" }
	redirect := func(to string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusTemporaryRedirect) }
	}
	realm := func(to string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+to+`",service="x"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}
	for what, test := range map[string]struct {
		on     func(*http.Request) bool
		answer func(http.ResponseWriter, *http.Request)
	}{
		"a layer on the loopback":            {isLayer, redirect(target)},
		"a layer on localhost":               {isLayer, redirect("http://localhost" + port)},
		"a layer on localhost, with TLS":     {isLayer, redirect("https://localhost" + port)},
		"a manifest on the loopback":         {isManifest, redirect(target)},
		"a layer on the IPv6 loopback":       {isLayer, redirect("http://[::1]" + port)},
		"a layer on an address in another":   {isLayer, redirect("https://[::ffff:127.0.0.1]" + port)},
		"a layer on no address":              {isLayer, redirect("https://0.0.0.0" + port)},
		"a layer on a metadata service":      {isLayer, redirect("http://169.254.169.254/latest/meta-data/")},
		"a layer on a metadata service, TLS": {isLayer, redirect("https://169.254.169.254/latest/meta-data/")},
		"tokens on the loopback":             {isPing, realm(target)},
		"tokens on localhost":                {isPing, realm("https://localhost" + port)},
		"tokens on a metadata service":       {isPing, realm("http://169.254.169.254/")},
		"a redirect of the first question":   {isPing, redirect(target)},
	} {
		t.Run(what, func(t *testing.T) {
			h := newHub(t)
			s, _ := storeOf(t, h)
			ref := h.push(t, "x", imageOf(t, []string{"a", "1"}))
			h.intercept(func(w http.ResponseWriter, r *http.Request) bool {
				if test.on(r) {
					test.answer(w, r)
				}
				return test.on(r)
			})
			keys := Keychain{{Server: h.host, Username: "user", Password: "pass"}}
			if _, _, err := s.Get(t.Context(), Request{Name: ref, Credentials: keys}); err == nil {
				t.Error("no error")
			}
			if reached.Load() > 0 {
				t.Error("it was reached")
			}
		})
	}
	for _, registry := range []string{"127.0.0.1" + port, "localhost" + port, "[::1]" + port, "0.0.0.0" + port, "169.254.169.254"} {
		s, _ := storeOf(t)
		if _, _, err := s.Get(t.Context(), Request{Name: registry + "/x"}); err == nil || !strings.Contains(err.Error(), "names that very host") {
			t.Errorf("%s as a registry: %v", registry, err)
		}
	}
	if reached.Load() > 0 {
		t.Error("it was reached")
	}
}

func TestTheDoorDecidesByAddressesWhenItConnects(t *testing.T) {
	target, reached := victim(t)
	port := target[strings.LastIndexByte(target, ':'):]
	door := newDoor(Rules{}, "registry.example.org", func(string) string { return "" })
	// A name that leads to the loopback: the host's own hosts file has this one.
	if _, err := door.dial(context.Background(), "tcp", "localhost"+port); err == nil || !strings.Contains(err.Error(), "the host's own address") {
		t.Error(err)
	}
	if reached.Load() > 0 {
		t.Error("it was reached")
	}
	for _, test := range []struct {
		to, address string
		private     bool // the registry has a private address
		may         bool
	}{
		{"registry.example.org:443", "192.0.2.1", false, true},
		{"registry.example.org:443", "10.0.0.1", false, true},
		{"registry.example.org:443", "fd00::1", false, true},
		{"layers.example.org:443", "10.0.0.1", false, false},
		{"layers.example.org:443", "172.16.0.1", false, false},
		{"layers.example.org:443", "100.64.0.1", false, false},
		{"layers.example.org:443", "fd12::1", false, false},
		{"layers.example.org:443", "::ffff:192.168.0.1", false, false},
		{"layers.example.org:443", "64:ff9b::a00:1", false, false},
		{"layers.example.org:443", "2002:a00:1::", false, false},
		{"layers.example.org:443", "10.0.0.1", true, true},
		{"layers.example.org:443", "192.0.2.1", false, true},
		{"registry.example.org:80", "10.0.0.1", false, false}, // another service there
		{"registry.example.org:443", "127.0.0.1", true, false},
		{"registry.example.org:443", "127.8.8.8", true, false},
		{"registry.example.org:443", "::1", true, false},
		{"registry.example.org:443", "::", true, false},
		{"registry.example.org:443", "0.0.0.0", true, false},
		{"registry.example.org:443", "64:ff9b::7f00:1", true, false},
		{"registry.example.org:443", "169.254.169.254", true, false},
		{"registry.example.org:443", "fe80::a9fe:a9fe", true, false},
		{"registry.example.org:443", "fd00:ec2::254", true, false},
		{"registry.example.org:443", "100.100.100.200", true, false},
		{"registry.example.org:443", "224.0.0.1", true, false},
	} {
		door := newDoor(Rules{}, "registry.example.org", func(string) string { return "" })
		door.private.Store(test.private)
		if err := door.mayReach(test.to, netip.MustParseAddr(test.address)); (err == nil) != test.may {
			t.Errorf("%+v: %v", test, err)
		}
	}
	named := newDoor(Rules{Images: []string{"127.0.0.1:5000/*", "*.example.org:5000/*"}, Registry: "here.example.org", Insecure: []string{"plain.example.org"}}, "127.0.0.1:5000",
		func(name string) string {
			return map[string]string{"HTTPS_PROXY": "http://proxy.example.org:3128"}[name]
		})
	for to, may := range map[string]bool{
		"127.0.0.1:5000": true, "here.example.org:443": true, "plain.example.org:80": true, "proxy.example.org:3128": true,
		"127.0.0.1:443": false, "any.example.org:5000": false, "here.example.org:80": false,
	} {
		if err := named.mayReach(to, netip.MustParseAddr("127.0.0.1")); (err == nil) != may {
			t.Errorf("%s: %v", to, err)
		}
	}
}

// elsewhere is a connection that seems to lead to another address.
type elsewhere struct {
	net.Conn
	address net.Addr
}

func (e elsewhere) RemoteAddr() net.Addr { return e.address }

func TestARegistryIsPrivateOnlyAtAnAddressWhereItShowsItsCertificate(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	for name, private := range map[string]bool{"example.com": true, "evil.example.org": false} { // the server's name, another one
		d := newDoor(Rules{}, name, func(string) string { return "" })
		d.Transport.TLSClientConfig = server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
		d.Transport.DialContext = func(context.Context, string, string) (net.Conn, error) {
			connection, err := net.Dial("tcp", server.Listener.Addr().String())
			return elsewhere{connection, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 443}}, err
		}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+name+"/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := d.RoundTrip(request)
		if err == nil {
			answer.Body.Close()
		}
		if (err == nil) != private || d.private.Load() != private {
			t.Errorf("%s: %v; private: %v", name, err, d.private.Load())
		}
	}
}

func TestRepositoriesShareNoPlaceOfAPull(t *testing.T) {
	s := &Store{Dir: "/oci"}
	digest := "sha256:" + strings.Repeat("0", 64)
	places := map[string]string{}
	for i := range 300_000 { // of 32 bits, half as many do for a collision
		repository := fmt.Sprintf("registry.example.org/%d", i)
		place := s.unfinished(digest, repository)
		if other := places[place]; other != "" {
			t.Fatalf("%s and %s", other, repository)
		}
		places[place] = repository
	}
}

func TestAPullGoesThroughTheProxyOfTheConfiguration(t *testing.T) {
	h := newHub(t)
	s, _ := storeOf(t, h)
	h.push(t, "x", imageOf(t, []string{"a", "1"}))
	var through atomic.Int64
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		through.Add(1)
		r.URL.Host, r.RequestURI = h.host, ""
		answer, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			w.WriteHeader(502)
			return
		}
		defer answer.Body.Close()
		for name, values := range answer.Header {
			w.Header()[name] = values
		}
		w.WriteHeader(answer.StatusCode)
		_, _ = io.Copy(w, answer.Body)
	}))
	defer proxy.Close()
	s.Environment = func(name string) string { return map[string]string{"http_proxy": proxy.URL}[name] }
	s.Rules.Insecure = append(s.Rules.Insecure, "registry.example.org") // which no name server knows
	s.Rules.Images = []string{"*"}
	if _, _, err := s.Get(t.Context(), Request{Name: strings.TrimPrefix(proxy.URL, "http://") + "/x"}); err == nil || through.Load() > 0 {
		t.Errorf("the proxy as a registry: %v", err)
	}
	if image := get(t, s, Request{Name: "registry.example.org/x"}); text(t, image, "a") != "1" || through.Load() == 0 {
		t.Error("not through the proxy")
	}
}

func TestCredentialsGoToTheirRegistryOnly(t *testing.T) {
	h, other := newHub(t), newHub(t)
	s, _ := storeOf(t, h, other)
	ref := h.push(t, "x", imageOf(t, []string{"a", "1"}))
	other.push(t, "x", imageOf(t, []string{"a", "1"}))
	var stolen atomic.Value
	other.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if header := r.Header.Get("Authorization"); header != "" {
			stolen.Store(header)
		}
		return false
	})
	h.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if _, _, ok := r.BasicAuth(); !ok {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		if r.Method == "GET" && strings.Contains(r.URL.Path, "/blobs/") {
			http.Redirect(w, r, other.URL+r.URL.Path, http.StatusTemporaryRedirect)
			return true
		}
		return false
	})
	get(t, s, Request{Name: ref, Credentials: Keychain{{Server: h.host, Username: "user", Password: "pass"}}})
	if header := stolen.Load(); header != nil {
		t.Errorf("another server was sent %v", header)
	}
	parsed, err := name.ParseReference(other.host + "/x")
	if err != nil {
		t.Fatal(err)
	}
	if _, found := (Keychain{{Server: h.host, Username: "user", Password: "pass"}}).find(parsed.Context().String()); found {
		t.Error("another registry has credentials")
	}
}

func TestAHostileImageFromARegistryLeavesNothing(t *testing.T) {
	h := newHub(t)
	s, _ := storeOf(t, h)
	for what, image := range map[string][]string{
		"out":  {"../../../../tmp/evil", "bad"},
		"bomb": {"zeros", string(make([]byte, 8<<20))},
	} {
		s.ImageMax = 4 << 20
		if _, _, err := s.Get(t.Context(), Request{Name: h.push(t, what, imageOf(t, image))}); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if _, err := os.Lstat("/tmp/evil"); err == nil {
		t.Error("it got out")
	}
	wantTidy(t, s)
}

func TestWithoutTLSOnlyRegistriesAreReachedThatTheAdministratorNamesAsSuch(t *testing.T) {
	h := newHub(t)
	ref := h.push(t, "x", imageOf(t, []string{"a", "1"}))
	s, _ := storeOf(t)
	s.Rules.Images = []string{h.host + "/*"} // it may be reached, but not so
	if _, _, err := s.Get(t.Context(), Request{Name: ref}); err == nil || len(h.requests()) > 0 {
		t.Errorf("%v", err)
	}
	tls := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was asked") }))
	defer tls.Close()
	host := strings.TrimPrefix(tls.URL, "https://")
	s.Rules.Images = []string{host + "/*"}
	if _, _, err := s.Get(t.Context(), Request{Name: host + "/x"}); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate that nobody knows: %v", err)
	}
}
