package integration

import (
	"encoding/base64"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/machine"
	"nspawn-runner/runner/starter"
	"nspawn-runner/test/gitlab"
)

// executor is a program of an image: it executes as root what it is sent, and returns the exit
// code in the first line of its answer.
const executor = `
import base64, http.server, subprocess
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        script = base64.b64decode(self.rfile.read(int(self.headers["Content-Length"])))
        done = subprocess.run(["bash", "-c", script], stdin=subprocess.DEVNULL, capture_output=True)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"%d\n" % done.returncode + done.stdout + b"\0" + done.stderr)
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("127.0.0.1", 9999), Handler).serve_forever()
`

// asProgram makes the machine of an attacker that of a program beside it, as those of services
// from registries are. The scripts go to the program through the other machine.
func (a attacked) asProgram(t *testing.T) attacked {
	t.Helper()
	a.h.startBeside(t, a.id, "service1", func(spec *machine.Spec) {
		spec.Service, spec.NoFUSE, spec.NoNesting = "hostile", true, true
		spec.Program = &machine.Program{StopSignal: unix.SIGTERM, Plan: starter.Plan{Command: []string{"python3", "-u", "-c", executor}}}
	})
	a.executes = func(t *testing.T, text string) call {
		t.Helper()
		c := a.h.run(t, a.id, `python3 - <<'END'
import sys, time, urllib.error, urllib.request
for _ in range(100):
    try:
        answer = urllib.request.urlopen("http://127.0.0.1:9999/", "`+base64.StdEncoding.EncodeToString([]byte(text))+`".encode()).read().decode(errors="replace")
        break
    except urllib.error.URLError: time.sleep(0.1)
code, _, rest = answer.partition("\n")
out, _, err = rest.partition("\0")
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(int(code))
END`)
		return c
	}
	return a
}

// The image of a registry is hostile, and its program is root in its machine.
func TestAttacksFromTheMachineOfAProgramAreHeld(t *testing.T) {
	h := onHost(t, "overlay")
	a := attacker(t, h).asProgram(t)
	if c := a.execute(t, "id -u; cat /proc/1/comm"); c.stdout != "0\npython3\n" {
		t.Fatalf("%+v", c)
	}
	attempts := append(onFiles(h.state), onProcesses(a.id)...)
	attempts = append(attempts, onTheKernel()...)
	for _, what := range attempts {
		switch what.name {
		case "write behind a read-only bind": // it has none
			continue
		}
		what.name += ", from a program"
		a.attempt(t, what)
	}
	for _, what := range []attempt{
		{"get all capabilities by a user namespace", `unshare --user --map-root-user true`, onTheHost},
		{"mount something", `mkdir -p /mnt/x; ` + private + `'mount -t tmpfs none /mnt/x'`, onTheHost},
		{"change the program that starts programs", `at=$(ls /dev/.nspawn-runner 2>/dev/null || mktemp); chmod u+w $at; exec 3>>$at`, onTheHost},
		{"change the network of the job's machine", `python3 -c 'import fcntl, socket, struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sH22x", b"lo", 0))' # SIOCSIFFLAGS`, inAPrivilegedMachine},
		{"trace a process of another user", `python3 -c '
import ctypes, os, signal, sys
libc = ctypes.CDLL(None)
ready, done = os.pipe()
child = os.fork()
if child == 0:
    os.setuid(1)
    os.write(done, b"x")
    signal.pause()
os.read(ready, 1)
refused = libc.ptrace(16, child, 0, 0) != 0 # PTRACE_ATTACH
os.kill(child, signal.SIGKILL)
sys.exit(refused)'`, onTheHost},
	} {
		a.attempt(t, what)
	}
	name := "say something to the host's service manager"
	a.execute(t, `python3 -c '
import os, socket
for path in ("/run/host/notify", "/run/systemd/notify"):
    if os.path.exists(path):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try: s.sendto(b"STATUS=\x1b[31mhostile\nMAINPID=1", path)
        except OSError as e: print(e)'`)
	status := shell(t, "systemctl show --property=StatusText,MainPID nspawn-runner-"+a.id+"-service1.service")
	if strings.Contains(status, "hostile") || strings.Contains(status, "MainPID=1\n") {
		gotThrough(t, name, status)
	}
	held(name)
}

// systemd-nspawn makes files in the tree of an image by their paths, as the host's root.
func TestAttacksByTheTreeOfAnImageAreHeld(t *testing.T) {
	h := onHost(t, "overlay")
	r := h.serves(t, "")
	const outside = "/opt/outside"
	must(t, os.MkdirAll(outside, 0o755))
	t.Cleanup(func() { must(t, os.RemoveAll(outside)) })
	must(t, unix.Mkfifo(outside+"/fifo", 0o600))
	play := func(name string, files map[string]file) gitlab.Result {
		image := r.pushLayers(t, name, exposing("8001"), programLayer(t), layerOf(t, files))
		return h.play(t, gitlab.Job{Script: []string{"true", fetch("http://localhost:8001/file?path=/etc/machine-id")}, Services: []gitlab.Image{{Name: image}}})
	}
	for _, name := range []string{"dev", "run"} {
		job := play(name, map[string]file{name: {link: outside}, "opt/outside": {isDir: true}})
		if job.Reason != gitlab.ScriptFailure {
			t.Errorf("/%s: %s: %s", name, job.Reason, job.Log)
		}
		wantLog(t, job.Log, ": broken image: /"+name+" is not a directory")
		if found, err := os.ReadDir(outside); err != nil || len(found) != 1 {
			gotThrough(t, "have files made on the host through /"+name, fmt.Sprint(found, err))
		}
	}
	if job := play("id", map[string]file{"etc/machine-id": {link: outside + "/fifo"}}); job.Status != gitlab.Success {
		gotThrough(t, "have systemd-nspawn read a fifo of the host", job.Log)
	}
	held("have files made on the host by links in place of directories")
}
