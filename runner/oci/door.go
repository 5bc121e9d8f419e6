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

// A door is the way of one pull to a registry, and to where the registry leads from there: to
// servers for tokens and for layers. The name of the registry may be a job's choice, and what
// the registry answers is its own. So the door decides by addresses, when it connects, after
// names are resolved:
//
//   - The host's loopback, link-local addresses and metadata services are closed, unless the
//     administrator names that very host.
//   - Private addresses are open to the registry that is asked, and to where it leads if it has
//     a private address itself: a company's registry may keep its layers on another server of the
//     company. A registry on the internet has no business there.
//   - Without TLS nothing is reached but registries that the administrator names as such.
//
// And each answer ends: after a size, after some redirects, or when too little of it comes.
type door struct {
	rules Rules
	// registry is the one that is asked, as HOST:PORT.
	registry string
	// private says that it has a private address.
	private atomic.Bool
	proxy   func(*url.URL) (*url.URL, error)
	proxies []string // HOST:PORT
	*http.Transport
}

const (
	maxRedirects = 10
	// maxAnswer bounds all answers but layers, in bytes: manifests, tokens, errors.
	maxAnswer = 4 << 20
	// connectTime bounds the time to connect, answerTime the time until an answer begins.
	connectTime, answerTime = 15 * time.Second, 30 * time.Second
	// stallTime is the time in which at least stallBytes of an answer must come.
	stallTime, stallBytes = 30 * time.Second, 64 << 10
)

// newDoor makes the way to a registry, HOST[:PORT]. environment has the variables for proxies.
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
		DisableCompression:     true, // layers are compressed already, and have a size
	}
	return d
}

// RoundTrip implements http.RoundTripper.
func (d *door) RoundTrip(request *http.Request) (*http.Response, error) {
	asked, steps := first(request)
	if steps > maxRedirects {
		return nil, fmt.Errorf("the registry redirects more than %d times", maxRedirects) // the library does not count
	}
	port := map[string]string{"https": "443", "http": "80"}[request.URL.Scheme]
	if port == "" {
		return nil, fmt.Errorf("%.20q is no way to a registry", request.URL.Scheme)
	}
	to := withPort(request.URL.Host, port)
	if port == "80" && !d.rules.isInsecure(to) {
		return nil, fmt.Errorf("%s is not reached without TLS (oci_insecure)", to)
	}
	if slices.Contains(d.proxies, to) {
		return nil, closedError{to, "the proxy of this host"}
	}
	// A proxy connects to what names itself, without asking here.
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
		most = -1 // whoever reads it knows the size
	}
	answer.Body = newSteadyBody(answer.Body, most)
	return answer, nil
}

// isBlob says whether a path is that of a blob, .../blobs/DIGEST. The name of a repository may
// have a part "blobs" too.
func isBlob(of string) bool { return path.Base(path.Dir(of)) == "blobs" }

// first is the request that was redirected to this one, in so many steps.
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

// closedError is an address to which the door does not lead.
type closedError struct{ to, what string }

func (e closedError) Error() string {
	return fmt.Sprintf("%s leads to %s, where no image is pulled from unless the configuration names that very host", e.to, e.what)
}

// mayReach says whether HOST:PORT may be reached at an address.
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

// embedded is the IPv4 address that an IPv6 address stands for, or the address itself.
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

// errStalled is that an answer comes too slowly.
var errStalled = fmt.Errorf("less than %d KiB came in %s", stallBytes>>10, stallTime)

// errTooLong is that an answer is longer than it may be.
var errTooLong = errors.New("the answer of the registry is too long")

// steadyBody is an answer that must not stall, and must not be too long.
type steadyBody struct {
	body io.ReadCloser
	most int64 // bytes that may come, -1 for any number

	timer *time.Timer
	slow  atomic.Bool
	left  time.Duration // of waiting, in this round
	got   int           // bytes of this round
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

// Close ends it.
func (b *steadyBody) Close() error {
	b.timer.Stop()
	return b.body.Close()
}
