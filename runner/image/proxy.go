package image

import (
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

// downloads is an HTTP proxy for the programs of one step of a build. What it
// fetches and will be the same tomorrow, it keeps for all builds.
//
// It is a proxy, and not a directory of packages that is lent to apt, because apt
// trusts what lies in its own directory by its size alone (pkgAcqArchive), and a
// package planted by one image would come into the next; what it fetches it
// checks against the lists that the mirror signed. And builds side by side need
// no locks, debootstrap, mmdebstrap and apt in the box no ways of their own, and
// no package is ever left in an image.
//
// It listens on the loopback device, which jobs share, so it has a password.
type downloads struct {
	cache   downloadCache
	address string // as of a proxy, with the password
	server  *http.Server
	forward *httputil.ReverseProxy
	secret  string // what the header Proxy-Authorization must be
	https   string // the proxy for https, which passes us by, or DIRECT

	mu     sync.Mutex
	served map[string]bool // addresses

	fetched, kept atomic.Int64 // bytes
}

// download does a step of the build with a proxy, or with none if no downloads
// are kept. listen is where the proxy listens.
func (b *build) download(listen func() (net.Listener, error), do func(*downloads) error) error {
	d, err := b.store.openDownloads(b.log, listen)
	if err != nil {
		return fmt.Errorf("download cache: %w", err)
	}
	if d == nil {
		return do(nil)
	}
	err = do(d)
	if err != nil && b.log.mentions("Hash Sum mismatch") {
		d.forget()
	}
	fmt.Fprintf(b.log, "== downloads: %d bytes from mirrors, %d bytes kept from earlier builds\n", d.fetched.Load(), d.kept.Load())
	return errors.Join(err, d.Close())
}

// openDownloads starts a proxy. If nothing is to be kept it removes what was, and
// returns nil.
func (s *Store) openDownloads(log io.Writer, listen func() (net.Listener, error)) (*downloads, error) {
	cache := s.downloads()
	if s.DownloadsMax == 0 {
		return nil, cache.prune()
	}
	if err := os.MkdirAll(cache.dir, 0o700); err != nil {
		return nil, err
	}
	listener, err := listen()
	if err != nil {
		return nil, err
	}
	account := url.UserPassword("build", rand.Text())
	d := &downloads{
		cache:   cache,
		address: (&url.URL{Scheme: "http", User: account, Host: listener.Addr().String()}).String(),
		secret:  "Basic " + base64.StdEncoding.EncodeToString([]byte(account.String())),
		served:  map[string]bool{},
	}
	upstream := s.proxies()
	d.https = "DIRECT"
	if upstream.HTTPSProxy != "" {
		d.https = upstream.HTTPSProxy
	}
	through := upstream.ProxyFunc()
	d.forward = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.Out.Host = r.In.Host },
		Transport: &http.Transport{
			Proxy:              func(r *http.Request) (*url.URL, error) { return through(r.URL) },
			DisableCompression: true, // what the client asked for, and nothing else
		},
		ModifyResponse: d.keep,
		ErrorLog:       stdlog.New(log, "== download: ", 0),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			fmt.Fprintf(log, "== download %s: %v\n", r.URL, err)
			refuse(w, err)
		},
	}
	d.server = &http.Server{Handler: d, ReadHeaderTimeout: time.Minute}
	go func() { _ = d.server.Serve(listener) }() // ends with Close
	return d, nil
}

// anyPort is an address of the loopback.
const anyPort = "127.0.0.1:0"

// onLoopback listens on the loopback of this process.
func onLoopback() (net.Listener, error) { return net.Listen("tcp", anyPort) }

// proxies are those of the builds' environment, as curl and apt read it.
func (s *Store) proxies() *httpproxy.Config {
	value := func(name string) string {
		for _, name := range []string{name, strings.ToUpper(name)} {
			if value, ok := s.Environment[name]; ok {
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

// Close ends the proxy and brings what is kept within bounds.
func (d *downloads) Close() error {
	return errors.Join(d.server.Close(), d.cache.prune())
}

// loans are what makes apt in a tree use the proxy, and keep no copies of what it
// installed; none without a proxy. If the tree has a proxy of its own in a file of
// a later name, that wins.
func (d *downloads) loans() []loan {
	if d == nil {
		return nil
	}
	conf := fmt.Sprintf(`Acquire::http::Proxy "%s";
Acquire::https::Proxy "%s";
APT::Keep-Downloaded-Packages "false";
`, d.address, d.https)
	return []loan{{"etc/apt/apt.conf.d/00nspawn-runner", []byte(conf), 0o644}}
}

// ServeHTTP answers one request of a program of the build.
func (d *downloads) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Header.Get("Proxy-Authorization") != d.secret:
		w.Header().Set("Proxy-Authenticate", `Basic realm="nspawn-runner"`)
		http.Error(w, "this proxy is for a build only", http.StatusProxyAuthRequired)
	case r.URL.Scheme != "http" || r.URL.Host == "":
		http.Error(w, "this proxy is for http only", http.StatusNotImplemented)
	case !d.serve(w, r):
		d.forward.ServeHTTP(w, r)
	}
}

// serve answers with what is kept. Who asks for the same again in one step was not
// content with it: that goes to the mirror, and replaces what is kept.
func (d *downloads) serve(w http.ResponseWriter, r *http.Request) bool {
	if r.Method != http.MethodGet || !keeps(r.URL.Path) {
		return false
	}
	address := r.URL.String()
	d.mu.Lock()
	again := d.served[address]
	d.served[address] = true
	d.mu.Unlock()
	if again {
		return false
	}
	file, modified := d.cache.open(address)
	if file == nil {
		return false
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return false
	}
	size := info.Size() - headerSize
	d.kept.Add(size)
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", modified, io.NewSectionReader(file, headerSize, size))
	return true
}

// keep keeps a whole file that is passed on.
func (d *downloads) keep(r *http.Response) error {
	d.fetched.Add(max(0, r.ContentLength))
	if r.Request.Method != http.MethodGet || r.StatusCode != http.StatusOK || r.ContentLength < 0 || !keeps(r.Request.URL.Path) {
		return nil
	}
	modified, err := http.ParseTime(r.Header.Get("Last-Modified"))
	if err != nil {
		modified = time.Now()
	}
	r.Body = d.cache.keep(r.Body, r.Request.URL.String(), r.ContentLength, modified)
	return nil
}

// forget removes what was served in this step: apt found something wrong in it.
func (d *downloads) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for address := range d.served {
		d.cache.remove(address)
	}
}

// refuse answers that a mirror could not be asked, in the line that apt prints:
// of "502 Bad Gateway" nobody learns that it was the mirror's name.
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
