package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// withNetwork gives the host's machines such a network, as long as a test lasts.
func withNetwork(t *testing.T, network string) *host {
	t.Helper()
	h := onHost(t, "overlay")
	h.configure(t, "network: "+network+"\n")
	t.Cleanup(func() { h.configure(t, "") })
	return h
}

// door is a server on the host that counts its callers.
type door struct {
	address string
	mu      sync.Mutex
	callers int
}

func openDoor(t *testing.T, network, address string) *door {
	t.Helper()
	listener, err := net.Listen(network, address)
	must(t, err)
	t.Cleanup(func() { listener.Close() })
	d := &door{address: listener.Addr().String()}
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			d.mu.Lock()
			d.callers++
			d.mu.Unlock()
			fmt.Fprintln(c, "the host")
			c.Close()
		}
	}()
	return d
}

func (d *door) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.callers
}

func (d *door) port(t *testing.T) string {
	t.Helper()
	_, port, err := net.SplitHostPort(d.address)
	must(t, err)
	return port
}

// ownAddress is the host's address towards the world. Nothing is sent.
func ownAddress(t *testing.T) string {
	t.Helper()
	c, err := net.Dial("udp4", "198.51.100.1:9")
	if err != nil {
		t.Skip("this host has no route to anywhere: ", err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).IP.String()
}

// ask is a script that prints what a server says, or "no".
func ask(address, port string) string {
	return fmt.Sprintf(`python3 -c '
import socket
try: print(socket.create_connection(("%s", %s), 3).recv(100).decode().strip())
except OSError: print("no")'
`, address, port)
}

func TestAJobReachesTheHostsAddressButNotItsLoopback(t *testing.T) {
	h := withNetwork(t, "private")
	id := h.prepared(t, "bookworm")
	own := openDoor(t, "tcp4", ownAddress(t)+":0")
	if c := h.run(t, id, ask(ownAddress(t), own.port(t))); c.stdout != "the host\n" {
		t.Errorf("the host's own address: %+v", c)
	}
	for network, address := range map[string]string{"tcp4": "127.0.0.1", "tcp6": "::1"} {
		d := openDoor(t, network, net.JoinHostPort(address, "0"))
		for _, to := range []string{address, "192.0.0.1", "0.0.0.0"} {
			if c := h.run(t, id, ask(to, d.port(t))); c.stdout != "no\n" || d.count() > 0 {
				t.Errorf("%s on port %s: %+v", to, d.address, c)
			}
		}
	}
}

// Root in a machine makes what packets it likes, and may so ask pasta for the
// host's loopback. That of 2023 obeys; that of 2025 dies of some of them, and a
// job that does so has lost its own network.
func TestForgedPacketsDoNotReachTheHostsLoopback(t *testing.T) {
	h := withNetwork(t, "private")
	forge, err := os.ReadFile(filepath.Join(os.Getenv("NSPAWN_RUNNER_TESTDATA"), "forge.py"))
	must(t, err)
	own := openDoor(t, "tcp4", ownAddress(t)+":0")
	four, six := openDoor(t, "tcp4", "127.0.0.1:0"), openDoor(t, "tcp6", "[::1]:0")
	controls := 0
	for _, to := range []string{"127.0.0.1", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1"} {
		id := h.prepared(t, "bookworm")
		send := func(d *door, to string) call {
			return h.run(t, id, fmt.Sprintf("python3 - %s %s <<'END'\n%s\nEND", to, d.port(t), forge))
		}
		send(four, to)
		send(six, to)
		if pasta(t, id) != "" {
			// The control: the same packet to an address that may be reached. When
			// it has arrived, pasta has treated those before it.
			before := own.count()
			if c := send(own, ownAddress(t)); c.status != 0 {
				t.Fatalf("the control: %+v", c)
			}
			await(t, "the control", func() bool { return own.count() > before })
			controls++
		}
		if four.count()+six.count() > 0 {
			t.Fatalf("a job reached the host's loopback as %s", to)
		}
	}
	if controls == 0 {
		t.Error("no forged packet arrived anywhere, so this shows nothing")
	}
}

func TestAbstractSocketsOfTheHostAreOutOfReach(t *testing.T) {
	name := "nspawn-runner-test-" + newID() // labs share a network, and so its sockets
	listener, err := net.Listen("unix", "@"+name)
	must(t, err)
	defer listener.Close()
	script := `python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect("\0` + name + `")' 2>/dev/null && echo reached || echo no`
	for network, want := range map[string]string{"private": "no\n", "none": "no\n", "host": "reached\n"} {
		t.Run(network, func(t *testing.T) {
			h := withNetwork(t, network)
			if c := h.run(t, h.prepared(t, "bookworm"), script); c.stdout != want {
				t.Errorf("%+v", c)
			}
		})
	}
}

func TestJobsBindAnyPortAndTheSameOne(t *testing.T) {
	h := withNetwork(t, "private")
	serve := `systemd-run -q python3 -m http.server 80
python3 - <<'END'
import socket, time
for _ in range(6000):
    try: socket.create_connection(("127.0.0.1", 80)).close(); print("serves"); break
    except OSError: time.sleep(0.01)
END`
	for _, id := range []string{h.prepared(t, "bookworm"), h.prepared(t, "bookworm")} {
		if c := h.run(t, id, serve); c.stdout != "serves\n" {
			t.Errorf("%+v", c)
		}
	}
}

func TestAJobChangesItsOwnNetworkOnly(t *testing.T) {
	h := withNetwork(t, "private")
	id := h.prepared(t, "bookworm")
	before := shell(t, "cat /proc/net/dev | cut -d: -f1; cat /proc/net/route; cat /proc/sys/net/ipv4/ip_forward")
	c := h.run(t, id, `echo 1 >/proc/sys/net/ipv4/ip_forward
python3 - <<'END'
import fcntl, socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"host0", 0)) # SIOCSIFFLAGS: down
END
grep -c host0 /proc/net/route`)
	if strings.TrimSpace(c.stdout) != "0" {
		t.Errorf("root in a machine cannot take its own interface down: %+v", c)
	}
	if after := shell(t, "cat /proc/net/dev | cut -d: -f1; cat /proc/net/route; cat /proc/sys/net/ipv4/ip_forward"); after != before {
		t.Errorf("the host's network was\n%s\nand is\n%s", before, after)
	}
}

func TestWithoutANetworkThereIsOnlyALoopback(t *testing.T) {
	h := withNetwork(t, "none")
	id := h.prepared(t, "bookworm")
	c := h.run(t, id, "cut -d: -f1 -s /proc/net/dev | tr -d ' '")
	if c.stdout != "lo\n" {
		t.Errorf("%+v", c)
	}
	if out := pasta(t, id); out != "" {
		t.Errorf("for nothing runs %s", out)
	}
}

// pasta is the process that leads out of a machine, or "".
func pasta(t *testing.T, id string) string {
	t.Helper()
	group := "/sys/fs/cgroup" + strings.TrimSpace(shell(t, "systemctl show -P ControlGroup nspawn-runner-"+id+".service"))
	pid, _ := os.ReadFile(group + "/network/cgroup.procs")
	return strings.TrimSpace(string(pid))
}

func TestWhatLeadsOutOfAMachineIsNobodyOnTheHost(t *testing.T) {
	h := withNetwork(t, "private")
	id := h.prepared(t, "bookworm")
	pid := pasta(t, id)
	if pid == "" {
		t.Fatal("there is no pasta in the machine's control group")
	}
	if uid := shell(t, "ps -o uid= -p "+pid); len(strings.TrimSpace(uid)) < 6 {
		t.Errorf("it runs as user %s", uid)
	}
	leader := strings.TrimSpace(shell(t, "machinectl show --property=Leader --value run-"+id))
	if shell(t, "readlink /proc/"+pid+"/ns/user") != shell(t, "readlink /proc/"+leader+"/ns/user") {
		t.Error("it is not in the machine's user namespace")
	}
	if status := shell(t, "grep -E '^(NoNewPrivs|Seccomp):' /proc/"+pid+"/status"); status != "NoNewPrivs:\t1\nSeccomp:\t2\n" {
		t.Error(status)
	}
	// And nothing in the machine sees it.
	if c := h.run(t, id, "pgrep pasta || echo none"); c.stdout != "none\n" {
		t.Errorf("%+v", c)
	}
}

// While an address is looked for on the wire, the pasta of 2023 loses what comes for the machine.
func TestEachAddressOfAMachineIsUsedAtOnce(t *testing.T) {
	h := withNetwork(t, "private")
	id := h.prepared(t, "bookworm")
	leader := strings.TrimSpace(shell(t, "machinectl show --property=Leader --value run-"+id))
	in := "nsenter --net --target " + leader + " "
	if got := shell(t, in+"ip -6 -brief address show dev host0"); !strings.Contains(got, "fe80:") {
		t.Errorf("addresses: %s", got)
	}
	// If the machine looked for duplicates, it would do so for four minutes.
	shell(t, in+"sysctl --quiet --write net.ipv6.conf.host0.dad_transmits=255")
	shell(t, in+"ip address add fd00:99::99/64 dev host0")
	await(t, "the use of each address", func() bool { return shell(t, in+"ip address show tentative") == "" })
}

func TestAJobWhoseWayOutIsKilledLosesItsNetworkOnly(t *testing.T) {
	h := withNetwork(t, "private")
	id := h.prepared(t, "bookworm")
	shell(t, "kill -9 "+pasta(t, id))
	await(t, "the end of pasta", func() bool { return pasta(t, id) == "" })
	d := openDoor(t, "tcp4", ownAddress(t)+":0")
	if c := h.run(t, id, ask(ownAddress(t), d.port(t))+"exit 5"); c.stdout != "no\n" || c.code != "5" {
		t.Errorf("%+v", c)
	}
}

func TestAResolverOnTheHostsLoopbackAnswersJobs(t *testing.T) {
	// Labs share one loopback, which is wide.
	address := fmt.Sprintf("127.%d.%d.53", 1+rand.IntN(250), 1+rand.IntN(250))
	must(t, answerNames(t, address+":53"))
	overTCP := openDoor(t, "tcp4", address+":53")
	resolvedBy(t, "search example.org\nnameserver "+address+"\noptions timeout:2\n")
	// pasta, which is nobody here, cannot read it: so it is where AppArmor keeps it
	// from systemd-resolved's.
	must(t, os.Chmod("/etc/resolv.conf", 0o600))

	h := withNetwork(t, "private")
	id := h.prepared(t, "bookworm")
	c := h.run(t, id, "cat /etc/resolv.conf; getent ahostsv4 www.example.org | head -1")
	want := "search example.org\nnameserver 192.0.0.3\noptions timeout:2\n203.0.113.7 "
	if !strings.HasPrefix(c.stdout, want) {
		t.Errorf("%+v", c)
	}
	if c := h.run(t, id, ask("192.0.0.3", "53")); c.stdout != "the host\n" || overTCP.count() != 1 {
		t.Errorf("over TCP: %+v", c)
	}
	// The way to it leads nowhere else.
	four := openDoor(t, "tcp4", address+":0")
	h.run(t, id, ask("192.0.0.1", four.port(t))+ask("192.0.0.3", four.port(t)))
	if four.count() > 0 {
		t.Error("a job reached the host's loopback by the resolver's way")
	}
}

// answerNames starts a resolver.
func answerNames(t *testing.T, address string) error {
	server, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	t.Cleanup(func() { server.Close() })
	go func() {
		buffer := make([]byte, 1500)
		for {
			n, from, err := server.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = server.WriteTo(answer(buffer[:n]), from)
		}
	}()
	return nil
}

// resolvedBy gives the host such a resolv.conf, as long as the test lasts.
func resolvedBy(t *testing.T, text string) {
	t.Helper()
	old, err := os.ReadFile("/etc/resolv.conf")
	must(t, err, os.WriteFile("/etc/resolv.conf", []byte(text), 0o644))
	t.Cleanup(func() { must(t, os.WriteFile("/etc/resolv.conf", old, 0o644), os.Chmod("/etc/resolv.conf", 0o644)) })
}

// answer is a DNS server's (RFC 1035): the question, and for type A one address.
func answer(question []byte) []byte {
	reply := append([]byte(nil), question...)
	if len(reply) < 12 {
		return nil
	}
	end := 12
	for end < len(reply) && reply[end] != 0 {
		end += int(reply[end]) + 1
	}
	end += 5 // the end of the name, type, class
	if end > len(reply) {
		return nil
	}
	reply = reply[:end]
	reply[2], reply[3] = 0x81, 0x80
	copy(reply[4:12], []byte{0, 1, 0, 0, 0, 0, 0, 0})
	if reply[end-3] == 1 {
		reply[7] = 1
		reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 7)
	}
	return reply
}

func TestWithoutPastaPrepareSaysWhatToInstall(t *testing.T) {
	h := withNetwork(t, "private")
	bin := t.TempDir()
	shell(t, "ln -s /usr/bin/* /usr/sbin/* "+bin+" 2>/dev/null; rm "+bin+"/pasta")
	c := h.driveWith(t, []string{"PATH=" + bin}, "prepare", "--id", newID(), "bookworm")
	if c.status != 2 {
		t.Errorf("%+v", c)
	}
	wantLog(t, c.stderr, "apt-get install passt", `"network: host"`)
}

func TestAPastaThatFailsFailsPrepareWithItsReason(t *testing.T) {
	h := withNetwork(t, "private")
	bin := t.TempDir()
	must(t, os.WriteFile(bin+"/pasta", []byte("#!/bin/sh\necho no routable interface >&2\nexit 1\n"), 0o755))
	must(t, os.Chmod(filepath.Dir(bin), 0o755), os.Chmod(bin, 0o755))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, h.driver, "--config", h.config, "prepare", "--id", newID(), "bookworm")
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Error("prepare ended well")
	}
	wantLog(t, string(out), "network private: pasta:", "no routable interface", "network: host")
}

func TestAPrivilegedMachineHasANetworkToo(t *testing.T) {
	h := withNetwork(t, "private")
	h.addImage(t, "privileged", "")
	h.book(t, "privileged", "nspawn_runner_privileged: true")
	d := openDoor(t, "tcp4", ownAddress(t)+":0")
	if c := h.run(t, h.prepared(t, "privileged"), ask(ownAddress(t), d.port(t))); c.stdout != "the host\n" {
		t.Errorf("%+v", c)
	}
}
