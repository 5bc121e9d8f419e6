package integration

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// site is two network namespaces: in one a host prepares machines, and the other is
// all that lies beyond.
type site struct {
	*host
	here, beyond string
}

// Their addresses on the wire between them.
const (
	hereAddress, beyondAddress = "10.11.12.1", "10.11.12.2"
	here6, beyond6             = "fd11:12::1", "fd11:12::2"
)

// onSite makes a site whose other end has more addresses.
func onSite(t *testing.T, h *host, more ...string) site {
	t.Helper()
	id := newID()
	s := site{here: "here-" + id, beyond: "beyond-" + id}
	t.Cleanup(func() { shell(t, "ip netns delete "+s.here+"; ip netns delete "+s.beyond) })
	script := `set -e
ip netns add {here}; ip netns add {beyond}
for ns in {here} {beyond}; do nsenter --net=/run/netns/$ns sh -c 'echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad'; done # as on a host that is up for seconds
ip -n {here} link add wire type veth peer name wire netns {beyond}
for ns in {here} {beyond}; do ip -n $ns link set lo up; ip -n $ns link set wire up; done
ip -n {here} address add ` + hereAddress + `/24 dev wire; ip -n {beyond} address add ` + beyondAddress + `/24 dev wire
ip -n {here} address add ` + here6 + `/64 dev wire nodad; ip -n {beyond} address add ` + beyond6 + `/64 dev wire nodad
ip -n {here} route add default via ` + beyondAddress + `; ip -n {here} -6 route add default via ` + beyond6 + "\n"
	for _, address := range more {
		if strings.Contains(address, ":") {
			address += " nodad"
		}
		script += "ip -n {beyond} address add dev wire " + address + "\n"
	}
	shell(t, strings.NewReplacer("{here}", s.here, "{beyond}", s.beyond).Replace(script))
	program := filepath.Join(t.TempDir(), "driver")
	must(t, os.WriteFile(program, []byte("#!/bin/sh\nexec nsenter --net=/run/netns/"+s.here+" "+h.driver+` "$@"`+"\n"), 0o755))
	there := *h
	there.driver = program
	s.host = &there
	return s
}

// in executes a function in a network namespace. What it opens stays there.
func in(t *testing.T, namespace string, do func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this
		file, err := os.Open("/run/netns/" + namespace)
		if err == nil {
			err = unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
			file.Close()
		}
		if err == nil {
			err = do()
		}
		done <- err
	}()
	must(t, <-done)
}

// doorIn is openDoor in a namespace.
func doorIn(t *testing.T, namespace, address, port string) (d *door) {
	t.Helper()
	in(t, namespace, func() error { d = openDoor(t, "tcp", net.JoinHostPort(address, port)); return nil })
	return d
}

// post is a UDP socket in a namespace, on a port that others may have too.
func post(t *testing.T, namespace, address string) (socket net.PacketConn) {
	t.Helper()
	in(t, namespace, func() error {
		at := netip.MustParseAddrPort(address)
		family, to := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Addr: at.Addr().As16(), Port: int(at.Port())})
		if at.Addr().Is4() {
			family, to = unix.AF_INET, &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}
		}
		fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		file := os.NewFile(uintptr(fd), address)
		defer file.Close()
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
		if err := unix.Bind(fd, to); err != nil {
			return err
		}
		socket, err = net.FilePacketConn(file)
		return err
	})
	t.Cleanup(func() { socket.Close() })
	return socket
}

// got is what a socket receives next, "" if nothing comes.
func got(t *testing.T, socket net.PacketConn) (string, net.Addr) {
	t.Helper()
	must(t, socket.SetReadDeadline(time.Now().Add(patience)))
	buffer := make([]byte, 1500)
	n, from, err := socket.ReadFrom(buffer)
	if err != nil {
		return "", nil
	}
	return string(buffer[:n]), from
}

func send(t *testing.T, from net.PacketConn, text, to string) {
	t.Helper()
	_, err := from.WriteTo([]byte(text), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)))
	must(t, err)
}

// A job that sends from a port of its choice must not get what comes for a service
// of the host on that port, nor keep one from starting, and nobody beyond finds the
// job by it.
func TestAttacksOnTheHostsDatagramsAreHeld(t *testing.T) {
	s := onSite(t, withNetwork(t, "private"))
	for _, family := range []struct{ name, socket, any, here, beyond string }{
		{"udp4", "AF_INET", "0.0.0.0", hereAddress, beyondAddress}, {"udp6", "AF_INET6", "::", here6, beyond6},
	} {
		t.Run(family.name, func(t *testing.T) {
			s.attackDatagrams(t, family.name, family.socket, family.any, family.here, family.beyond)
		})
	}
}

func (s site) attackDatagrams(t *testing.T, network, family, wildcard, here, there string) {
	id := s.prepared(t, "bookworm")
	const port = "25826"
	beyond := post(t, s.beyond, net.JoinHostPort(there, port))
	service := post(t, s.here, net.JoinHostPort(wildcard, port))
	if c := s.run(t, id, `cat > /take.py <<'END'
import socket
sockets = []
for port in (25826, 25827, 25828):
    s = socket.socket(socket.`+family+`, socket.SOCK_DGRAM); s.bind(("`+wildcard+`", port)); sockets.append(s)
    s.sendto(b"from the job", ("`+there+`", 25826))
    print(s.recv(100).decode(), flush=True)
open("/ready", "w")
while True:
    data, sender = sockets[0].recvfrom(100)
    open("/taken", "a").write(data.decode() + "\n")
END
systemd-run -q -u take -p StandardOutput=file:/answers python3 /take.py`); c.status != 0 {
		t.Fatalf("%+v", c)
	}
	var ports []string
	for range 3 {
		text, from := got(t, beyond)
		if text != "from the job" {
			t.Fatalf("the job's datagram did not arrive: %q; %+v", text, s.run(t, id, "journalctl -u take; cat /answers"))
		}
		send(t, beyond, "answer", from.String())
		ports = append(ports, from.String())
	}
	await(t, "the answers", func() bool { return s.run(t, id, "test -e /ready").status == 0 })
	if c := s.run(t, id, "cat /answers"); c.stdout != "answer\nanswer\nanswer\n" {
		t.Errorf("the job's answers: %+v", c)
	}
	name := "take the datagrams of a service of the host, " + network
	stranger := post(t, s.beyond, net.JoinHostPort(there, "25830"))
	for _, sender := range []net.PacketConn{stranger, beyond} {
		send(t, sender, "for the service", net.JoinHostPort(here, port))
		if text, _ := got(t, service); text != "for the service" {
			gotThrough(t, name, s.run(t, id, "cat /taken"))
		}
	}
	held(name)
	name = "be reached by datagrams of others, " + network
	for _, at := range ports { // by all whom the job wrote to, and by no stranger
		send(t, stranger, "from a stranger", at)
		send(t, beyond, "of whom it wrote to", at)
	}
	await(t, "the datagrams", func() bool { return strings.Contains(s.run(t, id, "cat /taken").stdout, "of whom it wrote to") })
	if c := s.run(t, id, "cat /taken"); strings.Contains(c.stdout, "stranger") {
		gotThrough(t, name, c)
	}
	held(name)
	name = "occupy a port of the host for datagrams, " + network
	in(t, s.here, func() error {
		socket, err := net.ListenPacket(network, net.JoinHostPort(wildcard, "25827"))
		if err != nil {
			return fmt.Errorf("got through: %s: %w", name, err)
		}
		return socket.Close()
	})
	held(name)
}

// Echoes have identifiers, and sockets for them may share one.
func TestAttacksOnOthersEchoesAreHeld(t *testing.T) {
	s := onSite(t, withNetwork(t, "private"))
	shell(t, "nsenter --net=/run/netns/"+s.here+" sh -c 'echo 0 2147483647 > /proc/sys/net/ipv4/ping_group_range'")
	first, second := s.prepared(t, "bookworm"), s.prepared(t, "bookworm")
	for i, id := range []string{first, second, first, second} {
		c := s.run(t, id, fmt.Sprintf(`python3 - %d <<'END'
import socket, struct, sys
def echo(check): return struct.pack("!BBHHH4s", 8, 0, check, 4711, int(sys.argv[1]), b"data")
total = sum(struct.unpack("!6H", echo(0)))
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
s.settimeout(60)
s.sendto(echo(~(total + (total >> 16)) & 0xffff), ("%s", 0))
print(struct.unpack("!B3xH", s.recv(100)[20:26]))
END`, i+1, beyondAddress))
		if c.stdout != "(0, 4711)\n" {
			gotThrough(t, "take the answer to another machine's echo", i, c)
		}
	}
	held("take the answer to another machine's echo")
}

// metadata are the addresses at which clouds keep what only the host may know.
var metadata = []string{
	"169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192",
	"fe80::a9fe:a9fe", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fd00:c1::a9fe:a9fe",
	"fd00:42::42", "fd00:a9fe:a9fe::1", "fd00:100::100:200", "64:ff9b::a9fe:a9fe",
}

func TestAttacksOnTheCloudsMetadataAreHeld(t *testing.T) {
	s := onSite(t, withNetwork(t, "private"), metadata...)
	forge, err := os.ReadFile(filepath.Join(os.Getenv("NSPAWN_RUNNER_TESTDATA"), "forge.py"))
	must(t, err)
	questions := askFor
	doors := map[string]*door{}
	for _, address := range metadata {
		zoned := address
		if strings.HasPrefix(address, "fe80:") {
			zoned += "%wire"
		}
		doors[address] = doorIn(t, s.beyond, zoned, "80")
		questions += fmt.Sprintf(" %q", address)
	}
	asked := func(id string) string {
		c := s.run(t, id, questions)
		if c.status != 0 {
			t.Fatalf("%+v", c)
		}
		return c.stdout
	}
	id := s.prepared(t, "bookworm")
	answers := asked(id)
	for _, to := range []string{"169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254"} {
		s.run(t, id, fmt.Sprintf("python3 - %s 80 <<'END'\n%s\nEND", to, forge))
	}
	for address, door := range doors {
		if door.count() > 0 {
			gotThrough(t, "reach the cloud's metadata", address, answers)
		}
	}
	held("reach the cloud's metadata")

	s.configure(t, "cloud_metadata: true\n")
	answers = asked(s.prepared(t, "bookworm"))
	for _, address := range metadata {
		if !strings.Contains(answers, address+" the host\n") {
			t.Errorf("nor is it reached where it may be, so this shows nothing: %s", answers)
		}
	}
}

// A machine that has the host's network sends from there, without pasta.
func TestAttacksOnTheCloudsMetadataFromTheHostsNetworkAreHeld(t *testing.T) {
	// Labs share a network: an address that no other one takes. None of metadata is in these.
	address := fmt.Sprintf("169.254.%d.%d", 1+rand.IntN(150), 1+rand.IntN(250))
	shell(t, "ip address add "+address+"/32 dev lo")
	t.Cleanup(func() { shell(t, "ip address delete "+address+"/32 dev lo") })
	door := openDoor(t, "tcp4", address+":0")
	h := withNetwork(t, "host")
	id := h.prepared(t, "bookworm")
	if c := h.run(t, id, ask(address, door.port(t))); c.stdout != "no\n" || door.count() > 0 {
		gotThrough(t, "reach the cloud's metadata from the host's network", c)
	}
	held("reach the cloud's metadata from the host's network")
	h.configure(t, "network: host\ncloud_metadata: true\n")
	if c := h.run(t, h.prepared(t, "bookworm"), ask(address, door.port(t))); c.stdout != "the host\n" {
		t.Errorf("nor is it reached where it may be, so this shows nothing: %+v", c)
	}
}

// Clouds have their resolvers among those addresses too.
func TestAResolverBesideTheCloudsMetadataAnswersJobs(t *testing.T) {
	const four, six = "169.254.169.253", "fe80::53"
	s := onSite(t, withNetwork(t, "private"), four, six)
	for _, address := range []string{four, six + "%wire"} {
		in(t, s.beyond, func() error { return answerNames(t, net.JoinHostPort(address, "53")) })
	}
	overTCP, other := doorIn(t, s.beyond, four, "53"), doorIn(t, s.beyond, four, "80")
	resolvedBy(t, "nameserver "+six+"%wire\nnameserver "+four+"\n")
	id := s.prepared(t, "bookworm")
	c := s.run(t, id, `cp /etc/resolv.conf /both; cat /both
for i in 1 2; do sed -n ${i}p /both >/etc/resolv.conf; getent ahostsv4 www$i.example.org | head -1; done`)
	want := "nameserver fe80::53%host0\nnameserver 169.254.169.253\n203.0.113.7 "
	if !strings.HasPrefix(c.stdout, want) || strings.Count(c.stdout, "203.0.113.7 ") != 2 {
		t.Errorf("%+v", c)
	}
	if c := s.run(t, id, ask(four, "53")+ask(four, "80")); c.stdout != "the host\nno\n" || overTCP.count() != 1 || other.count() != 0 {
		t.Errorf("%+v", c)
	}
}

// askFor prints for each address what a server on port 80 there says, or no.
const askFor = `cat > /ask.py <<'END'
import socket, sys, threading
def ask(address):
    to = address + ("%host0" if address.startswith("fe80:") else "")
    try: answer = socket.create_connection((to, 80), 2).recv(100).decode().strip()
    except OSError: answer = "no"
    print(f"{address} {answer}\n", end="")
for address in sys.argv[1:]: threading.Thread(target=ask, args=[address]).start()
END
python3 /ask.py`

// A job that opens all that it can must leave ports of the host to the others.
func TestAttacksByTakingAllPortsAreHeld(t *testing.T) {
	s := onSite(t, withNetwork(t, "private"))
	shell(t, "nsenter --net=/run/netns/"+s.here+" sh -c 'echo 40000 48191 > /proc/sys/net/ipv4/ip_local_port_range'")
	id := s.prepared(t, "bookworm")
	beyond := doorIn(t, s.beyond, beyondAddress, "0")
	c := s.run(t, id, `python3 - <<'END'
import socket
before = socket.create_connection(("`+beyondAddress+`", `+beyond.port(t)+`))
for port in 3 * list(range(40000, 48192)): # what is too fast for pasta is lost
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("0.0.0.0", port)); s.sendto(b"x", ("`+beyondAddress+`", 9)); s.close()
print(before.recv(100).decode().strip())
END`)
	if c.stdout != "the host\n" {
		t.Fatalf("a connection that was there before: %+v", c)
	}
	taken := number(t, shell(t, "nsenter --net=/run/netns/"+s.here+" sh -c 'wc -l </proc/net/udp'"))
	t.Logf("the job has %d ports", taken)
	if taken < 1000 { // of the 2048 that it may have
		t.Errorf("the job took %d ports only, so this shows nothing", taken)
	}
	name := "take all ports of the host"
	in(t, s.here, func() error {
		for range 20 {
			socket, err := net.ListenPacket("udp4", "0.0.0.0:0")
			if err != nil {
				return fmt.Errorf("got through: %s: %w", name, err)
			}
			defer socket.Close()
		}
		return nil
	})
	held(name)
}

// What a job has done with keeps its port for a minute, unless the host is as the
// doctor asks.
func TestAPortOfAConnectionThatIsOverIsUsedAgain(t *testing.T) {
	s := onSite(t, withNetwork(t, "private"))
	shell(t, "nsenter --net=/run/netns/"+s.here+" sh -c 'cd /proc/sys/net/ipv4; echo 40000 40499 > ip_local_port_range; echo 1 > tcp_tw_reuse'")
	id := s.prepared(t, "bookworm")
	var server net.Listener
	in(t, s.beyond, func() (err error) { server, err = net.Listen("tcp4", beyondAddress+":0"); return err })
	t.Cleanup(func() { server.Close() })
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() { // who closes first keeps the port: that is the job
				defer c.Close()
				_, _ = c.Read(make([]byte, 1))
			}()
		}
	}()
	address := server.Addr().String()
	c := s.run(t, id, fmt.Sprintf(`python3 - <<'END'
import socket
for _ in range(500):
    try: s = socket.create_connection(("%s", %s), 5)
    except OSError: break
    s.shutdown(socket.SHUT_WR); s.recv(1); s.close()
END`, beyondAddress, address[strings.LastIndex(address, ":")+1:]))
	if c.status != 0 {
		t.Fatalf("%+v", c)
	}
	if over := shell(t, "nsenter --net=/run/netns/"+s.here+" grep -o 'tw [0-9]*' /proc/net/sockstat"); len(over) < len("tw 400\n") {
		t.Errorf("the job kept %s of 500 ports, so this shows nothing", over)
	}
	start := time.Now()
	await(t, "a port for the host", func() bool {
		failed := false
		in(t, s.here, func() error {
			c, err := net.DialTimeout("tcp4", address, time.Second)
			if failed = err != nil; !failed {
				c.Close()
			}
			return nil
		})
		return !failed
	})
	if waited := time.Since(start); waited > 20*time.Second { // without, a minute
		t.Errorf("the host waited %v", waited)
	}
}
