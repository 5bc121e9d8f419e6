package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/http/httpproxy"

	"nspawn-runner/runner/network"
)

// A door makes the connections of one pull: to the registry, and to the servers for tokens and layers to which
// the registry leads. A job may choose the registry, and the registry chooses its answers. So the door decides
// when it connects, by the address, after the name is resolved:
//
//   - The host's loopback, link-local addresses and metadata services are closed, unless the administrator
//     names that very host.
//   - Private addresses are open for the registry itself. They are open for servers to which it leads if the
//     registry has a private address: a company's registry may have its layers on another server of the company.
//     A registry on the internet has no reason to lead there.
//   - Only registries that the administrator has named in oci_insecure are reached without TLS.
//
// The door also limits each answer: its size, its redirects, and how slowly it may come.
type door struct {
	rules Rules
	// registry is the registry that is asked, as HOST:PORT.
	registry string
	// private says that the registry has a private address.
	private atomic.Bool
	proxy   func(*url.URL) (*url.URL, error)
	proxies []string // HOST:PORT
	*http.Transport
}

const (
	maxRedirects = 10
	// maxAnswer bounds all answers except blobs, in bytes: manifests, tokens, errors.
	maxAnswer = 4 << 20
	// connectTime bounds the time to connect, answerTime the time until an answer begins.
	connectTime, answerTime = 15 * time.Second, 30 * time.Second
	// At least stallBytes of an answer must come within stallTime.
	stallTime, stallBytes = 30 * time.Second, 64 << 10
)

// newDoor makes a door to a registry, HOST[:PORT]. environment returns the variables for proxies.
func newDoor(rules Rules, registry string, environment func(string) string) *door {
	d := &door{rules: rules, registry: withPort(registry, "443")}
	if slices.Contains(rules.Insecure, registry) {
		d.registry = withPort(registry, "80")
	}
	either := func(name string) string {
		if value := environment(name); value != "" {
			return value
		}
		return environment(strings.ToUpper(name))
	}
	proxies := httpproxy.Config{HTTPProxy: either("http_proxy"), HTTPSProxy: either("https_proxy"), NoProxy: either("no_proxy")}
	d.proxy = proxies.ProxyFunc()
	for _, address := range []string{proxies.HTTPProxy, proxies.HTTPSProxy} {
		if !strings.Contains(address, "://") {
			address = "http://" + address
		}
		if u, err := url.Parse(address); err == nil && u.Host != "" {
			d.proxies = append(d.proxies, withPort(u.Host, map[string]string{"https": "443", "socks5": "1080"}[u.Scheme]))
		}
	}
	d.Transport = &http.Transport{
		Proxy:                  func(r *http.Request) (*url.URL, error) { return d.proxy(r.URL) },
		DialContext:            d.dial,
		TLSHandshakeTimeout:    connectTime,
		ResponseHeaderTimeout:  answerTime,
		MaxResponseHeaderBytes: 256 << 10,
		ForceAttemptHTTP2:      true,
		IdleConnTimeout:        time.Minute,
		DisableCompression:     true, // layers are compressed already, and their size is checked
	}
	return d
}

// RoundTrip implements http.RoundTripper.
func (d *door) RoundTrip(request *http.Request) (*http.Response, error) {
	asked, steps := first(request)
	if steps > maxRedirects {
		return nil, fmt.Errorf("the registry redirects more than %d times", maxRedirects) // the library has no limit
	}
	port := map[string]string{"https": "443", "http": "80"}[request.URL.Scheme]
	if port == "" {
		return nil, fmt.Errorf("%.20q is not a protocol for registries", request.URL.Scheme)
	}
	to := withPort(request.URL.Host, port)
	if port == "80" && !d.rules.isInsecure(to) {
		return nil, fmt.Errorf("%s is not reached without TLS (oci_insecure)", to)
	}
	if slices.Contains(d.proxies, to) {
		return nil, closedError{to, "the proxy of this host"}
	}
	// A proxy connects to literal addresses without a call of dial, so they are checked here.
	host := request.URL.Hostname()
	if address, err := netip.ParseAddr(host); err == nil {
		if err := d.mayReach(to, address); err != nil {
			return nil, err
		}
	} else if host = strings.TrimSuffix(strings.ToLower(host), "."); (host == "localhost" || strings.HasSuffix(host, ".localhost")) && !d.rules.isNamed(to) {
		return nil, closedError{to, "this host itself"}
	}
	if proxy, _ := d.proxy(request.URL); to == d.registry && proxy == nil {
		request = request.WithContext(httptrace.WithClientTrace(request.Context(), &httptrace.ClientTrace{GotConn: d.connected}))
	}
	answer, err := d.Transport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	most := int64(maxAnswer)
	if asked.Method == http.MethodGet && isBlob(asked.URL.Path) {
		most = -1 // its reader knows the size
	}
	answer.Body = newSteadyBody(answer.Body, most)
	return answer, nil
}

// isBlob says whether a path is that of a blob: .../blobs/DIGEST. The name of a repository may have a part "blobs"
// too.
func isBlob(of string) bool { return path.Base(path.Dir(of)) == "blobs" }

// first returns the request that was redirected to this one, and the number of redirects.
func first(request *http.Request) (asked *http.Request, steps int) {
	for asked = request; asked.Response != nil && asked.Response.Request != nil && steps <= maxRedirects; steps++ {
		asked = asked.Response.Request
	}
	return asked, steps
}

// dial connects to HOST:PORT.
func (d *door) dial(ctx context.Context, protocol, to string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: connectTime, Control: func(_, at string, _ syscall.RawConn) error {
		address, err := netip.ParseAddrPort(at)
		if err != nil {
			return err
		}
		return d.mayReach(strings.ToLower(to), address.Addr())
	}}
	return dialer.DialContext(ctx, protocol, to)
}

// connected notes whether the registry has a private address. It is called when the registry
// has shown its certificate: before, any address could be that of a name of a job's choice.
func (d *door) connected(info httptrace.GotConnInfo) {
	if at, ok := info.Conn.RemoteAddr().(*net.TCPAddr); ok && isPrivate(at.AddrPort().Addr()) {
		d.private.Store(true)
	}
}

// closedError is the error for an address that must not be reached.
type closedError struct{ to, what string }

func (e closedError) Error() string {
	return fmt.Sprintf("%s leads to %s, where no image is pulled from unless the configuration names that very host", e.to, e.what)
}

// mayReach returns an error if HOST:PORT must not be reached at an address.
func (d *door) mayReach(to string, address netip.Addr) error {
	if d.rules.isNamed(to) || slices.Contains(d.proxies, to) {
		return nil
	}
	address = embedded(address)
	switch {
	case network.IsHosts(address) || address.IsLinkLocalUnicast():
		return closedError{to, "the host's own address " + address.String()}
	case isPrivate(address) && to != d.registry && !d.private.Load():
		return closedError{to, "the private address " + address.String()}
	}
	return nil
}

var (
	shared = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598
	nat64  = netip.MustParsePrefix("64:ff9b::/96")  // RFC 6052
	sixTo4 = netip.MustParsePrefix("2002::/16")     // RFC 3056
)

// embedded returns the IPv4 address in an IPv6 address, or the address itself.
func embedded(address netip.Addr) netip.Addr {
	address = address.Unmap().WithZone("")
	bytes := address.AsSlice()
	switch {
	case nat64.Contains(address):
		address, _ = netip.AddrFromSlice(bytes[12:16])
	case sixTo4.Contains(address):
		address, _ = netip.AddrFromSlice(bytes[2:6])
	}
	return address
}

func isPrivate(address netip.Addr) bool {
	address = embedded(address)
	return address.IsPrivate() || shared.Contains(address)
}

// errStalled is the error if an answer comes too slowly.
var errStalled = fmt.Errorf("less than %d KiB came in %s", stallBytes>>10, stallTime)

// errTooLong is the error if an answer is too long.
var errTooLong = errors.New("the answer of the registry is too long")

// steadyBody is the body of an answer. It fails if the answer stalls, or is too long.
type steadyBody struct {
	body io.ReadCloser
	most int64 // bytes that may come, -1 for any number

	timer *time.Timer
	slow  atomic.Bool
	left  time.Duration // the time left to get stallBytes
	got   int           // how many of these bytes have come
}

func newSteadyBody(body io.ReadCloser, most int64) *steadyBody {
	b := &steadyBody{body: body, most: most, left: stallTime}
	b.timer = time.AfterFunc(stallTime, func() {
		b.slow.Store(true)
		b.body.Close() // ends the Read
	})
	b.timer.Stop()
	return b
}

func (b *steadyBody) Read(p []byte) (int, error) {
	if b.slow.Load() {
		return 0, errStalled
	}
	b.timer.Reset(b.left)
	began := time.Now()
	n, err := b.body.Read(p)
	b.timer.Stop()
	if b.slow.Load() {
		return 0, errStalled
	}
	b.got += n
	b.left -= time.Since(began)
	if b.got >= stallBytes {
		b.left, b.got = stallTime, 0
	} else if b.left <= 0 {
		b.left = time.Nanosecond
	}
	if b.most >= 0 {
		if b.most -= int64(n); b.most < 0 {
			return 0, errTooLong
		}
	}
	return n, err
}

// Close closes the answer.
func (b *steadyBody) Close() error {
	b.timer.Stop()
	return b.body.Close()
}
