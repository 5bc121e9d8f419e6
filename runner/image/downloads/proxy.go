package downloads

import (
	"cmp"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpproxy"
)

// Proxy is an HTTP proxy for the programs of one step of a build. It answers from the
// cache, and caches what it fetches.
//
// It is a proxy, and not a directory of packages that is lent to apt, because apt
// trusts what lies in its own directory by its size alone (pkgAcqArchive), and a
// package planted by one image would come into the next; what it fetches it
// checks against the lists that the mirror signed. And builds side by side need
// no locks, debootstrap, mmdebstrap and apt in the box no ways of their own, and
// no package is ever left in an image.
//
// It listens on the loopback device, which jobs share, so it has a password.
type Proxy struct {
	cache   Cache
	address string // as of a proxy, with the password
	server  *http.Server
	forward *httputil.ReverseProxy
	secret  string // what the header Proxy-Authorization must be
	https   string // the proxy for https, which passes us by, or DIRECT

	mu     sync.Mutex
	served map[string]bool // addresses
	failed error           // of the first server that could not be asked

	fetched, cached atomic.Int64 // bytes
}

// AnyPort is the address for a proxy's listener: any port of the loopback device.
const AnyPort = "127.0.0.1:0"

// Serve starts a proxy at what listen opens. It fetches by the proxies that environment,
// or else this process's environment, names. Errors of downloads go to log. If the cache
// is turned off, Serve empties it and returns nil: no proxy, whose Environment and AptConf
// are empty.
func (c Cache) Serve(listen func() (net.Listener, error), environment map[string]string, log io.Writer) (*Proxy, error) {
	if c.Max == 0 {
		return nil, c.Prune()
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, err
	}
	listener, err := listen()
	if err != nil {
		return nil, err
	}
	account := url.UserPassword("build", rand.Text())
	p := &Proxy{
		cache:   c,
		address: (&url.URL{Scheme: "http", User: account, Host: listener.Addr().String()}).String(),
		secret:  "Basic " + base64.StdEncoding.EncodeToString([]byte(account.String())),
		served:  map[string]bool{},
	}
	upstream := proxies(environment)
	p.https = "DIRECT"
	if upstream.HTTPSProxy != "" {
		p.https = upstream.HTTPSProxy
	}
	through := upstream.ProxyFunc()
	p.forward = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.Out.Host = r.In.Host },
		Transport: &http.Transport{
			Proxy:              func(r *http.Request) (*url.URL, error) { return through(r.URL) },
			DisableCompression: true, // what the client asked for, and nothing else
		},
		ModifyResponse: p.store,
		ErrorLog:       stdlog.New(log, "== download: ", 0),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			fmt.Fprintf(log, "== download %s: %v\n", r.URL, err)
			if r.Context().Err() == nil { // else the program went away
				p.mu.Lock()
				p.failed = cmp.Or(p.failed, err)
				p.mu.Unlock()
			}
			refuse(w, err)
		},
	}
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: time.Minute}
	go func() { _ = p.server.Serve(listener) }() // ends with Close
	return p, nil
}

// proxies are those of an environment, else of this process's, as curl and apt read it.
func proxies(environment map[string]string) *httpproxy.Config {
	value := func(name string) string {
		for _, name := range []string{name, strings.ToUpper(name)} {
			if value, ok := environment[name]; ok {
				return value
			}
			if value, ok := os.LookupEnv(name); ok {
				return value
			}
		}
		return ""
	}
	return &httpproxy.Config{HTTPProxy: value("http_proxy"), HTTPSProxy: value("https_proxy"), NoProxy: value("no_proxy")}
}

// Close ends the proxy and brings the cache within its bounds.
func (p *Proxy) Close() error {
	return errors.Join(p.server.Close(), p.cache.Prune())
}

// Environment are the variables, as NAME=VALUE, by which programs of this host use the
// proxy.
func (p *Proxy) Environment() []string {
	if p == nil {
		return nil
	}
	return []string{"http_proxy=" + p.address}
}

// AptConf is a file for apt.conf.d, by which apt in a tree uses the proxy and leaves no
// copies of what it installs. If the tree has a proxy of its own in a file of a later
// name, that wins.
func (p *Proxy) AptConf() []byte {
	if p == nil {
		return nil
	}
	return fmt.Appendf(nil, `Acquire::http::Proxy "%s";
Acquire::https::Proxy "%s";
APT::Keep-Downloaded-Packages "false";
`, p.address, p.https)
}

// Fetched is how many bytes came from mirrors.
func (p *Proxy) Fetched() int64 { return p.fetched.Load() }

// Cached is how many bytes came from the cache.
func (p *Proxy) Cached() int64 { return p.cached.Load() }

// Explain adds to the failure of a program that no server could be asked, where the failure
// does not say so: apt goes on without the lists that it did not get, and then misses packages.
func (p *Proxy) Explain(failure error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if failure == nil || p.failed == nil || strings.Contains(failure.Error(), p.failed.Error()) {
		return failure
	}
	return fmt.Errorf("%w; downloads failed: %w", failure, p.failed)
}

// ServeHTTP answers one request of a program of the build.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Header.Get("Proxy-Authorization") != p.secret:
		w.Header().Set("Proxy-Authenticate", `Basic realm="nspawn-runner"`)
		http.Error(w, "this proxy is for a build only", http.StatusProxyAuthRequired)
	case r.URL.Scheme != "http" || r.URL.Host == "":
		http.Error(w, "this proxy is for http only", http.StatusNotImplemented)
	case !p.serve(w, r):
		p.forward.ServeHTTP(w, r)
	}
}

// serve answers from the cache. A program that asks for the same again in one step was
// not content with the answer: that goes to the mirror, and replaces the cached file.
func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) bool {
	if r.Method != http.MethodGet || !isCacheable(r.URL.Path) {
		return false
	}
	address := r.URL.String()
	p.mu.Lock()
	again := p.served[address]
	p.served[address] = true
	p.mu.Unlock()
	if again {
		return false
	}
	file, modified := p.cache.open(address)
	if file == nil {
		return false
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return false
	}
	size := info.Size() - headerSize
	p.cached.Add(size)
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", modified, io.NewSectionReader(file, headerSize, size))
	return true
}

// store caches a whole file that is passed on.
func (p *Proxy) store(r *http.Response) error {
	p.fetched.Add(max(0, r.ContentLength))
	if r.Request.Method != http.MethodGet || r.StatusCode != http.StatusOK || r.ContentLength < 0 || !isCacheable(r.Request.URL.Path) {
		return nil
	}
	modified, err := http.ParseTime(r.Header.Get("Last-Modified"))
	if err != nil {
		modified = time.Now()
	}
	r.Body = p.cache.record(r.Body, r.Request.URL.String(), r.ContentLength, modified)
	return nil
}

// Reject removes from the cache what was served: apt found something wrong in it.
func (p *Proxy) Reject() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for address := range p.served {
		p.cache.remove(address)
	}
}

// refuse answers that a mirror could not be asked, in the line that apt prints:
// "502 Bad Gateway" would not say that it was the mirror's name.
func refuse(w http.ResponseWriter, why error) {
	reason := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return ' '
		}
		return r
	}, why.Error())
	if conn, buffer, err := http.NewResponseController(w).Hijack(); err == nil {
		defer conn.Close()
		fmt.Fprintf(buffer, "HTTP/1.1 502 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", reason, len(reason), reason)
		buffer.Flush()
		return
	}
	http.Error(w, reason, http.StatusBadGateway)
}
