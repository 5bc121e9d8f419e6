package box

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// A build's environment may name a proxy on the loopback of this host. A machine has a
// loopback of its own: there the same address leads to the host's, as long as the
// playbook runs.

// LoopbackProxies are the addresses of the proxies in an environment that are on the
// loopback: HOST:PORT.
func LoopbackProxies(environment map[string]string) (addresses []string) {
	for name, value := range environment {
		if !strings.HasSuffix(strings.ToLower(name), "_proxy") {
			continue
		}
		if !strings.Contains(value, "://") { // as curl takes it
			value = "http://" + value
		}
		proxy, err := url.Parse(value)
		if err != nil || proxy.Port() == "" {
			continue
		}
		host := proxy.Hostname()
		if host == "localhost" {
			host = "127.0.0.1"
		}
		if ip, err := netip.ParseAddr(host); err == nil && ip.IsLoopback() {
			addresses = append(addresses, net.JoinHostPort(host, proxy.Port()))
		}
	}
	slices.Sort(addresses)
	return slices.Compact(addresses)
}

// Relay makes addresses behind a door lead to the same ones of this host, until the
// returned function is called. Where both are one network, they do.
func (d *Door) Relay(addresses []string) (stop func(), err error) {
	var listeners []net.Listener
	stop = func() {
		for _, listener := range listeners {
			listener.Close()
		}
	}
	if d.handles["--net"] == nil {
		return stop, nil
	}
	for _, address := range addresses {
		listener, err := d.Listen(address)
		if err != nil {
			stop()
			return nil, fmt.Errorf("relay the proxy %s into the machine: %w; one that does not listen on this host's loopback needs no relay", address, err)
		}
		listeners = append(listeners, listener)
		go relayAll(listener, address)
	}
	return stop, nil
}

// relayAll relays each connection that a listener gets, until it is closed.
func relayAll(from net.Listener, to string) {
	for {
		inside, err := from.Accept()
		if err != nil { // it is closed
			return
		}
		go relayOne(inside.(*net.TCPConn), to)
	}
}

// relayOne copies both ways. Each end passes on when the other one has said all.
func relayOne(inside *net.TCPConn, to string) {
	defer inside.Close()
	outside, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer outside.Close()
	var both sync.WaitGroup
	for _, way := range [][2]*net.TCPConn{{inside, outside.(*net.TCPConn)}, {outside.(*net.TCPConn), inside}} {
		both.Go(func() {
			_, _ = io.Copy(way[1], way[0])
			_ = way[1].CloseWrite()
		})
	}
	both.Wait()
}

// Listen listens at an address of the machine: what a build serves must be reached from
// inside. Where the machine has the host's network, it is one of the host's.
func (d *Door) Listen(address string) (net.Listener, error) {
	network := d.handles["--net"]
	if network == nil {
		return net.Listen("tcp", address)
	}
	type result struct {
		listener net.Listener
		err      error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // for good: the thread has another network, and ends with this
		var r result
		if r.err = unix.Setns(int(network.Fd()), unix.CLONE_NEWNET); r.err == nil {
			r.listener, r.err = net.Listen("tcp", address)
		}
		done <- r
	}()
	r := <-done
	return r.listener, r.err
}
