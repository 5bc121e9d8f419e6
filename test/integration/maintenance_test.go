package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// raw is a task: a shell command, which needs no python in the image.
func raw(command string) string { return fmt.Sprintf("- ansible.builtin.raw: %q", command) }

func TestImagesAreMaintainedSeveralAtATimeAndAFailureStopsNone(t *testing.T) {
	needLab(t)
	h := onHost(t, "overlay")
	for _, image := range []string{"left", "right", "wrong"} {
		h.addImage(t, image, "")
	}
	// Each of the two waits for the other, through a place that both see: the
	// host's network, which other labs see too. Abstract sockets need no files.
	meet := strings.ReplaceAll(`python3 -c '
import socket, time
own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); own.bind("\0meet-%s-ID")
for i in range(600):
    try: own.sendto(b"here", "\0meet-%s-ID"); break
    except OSError: time.sleep(0.1)
own.settimeout(60); own.recv(9)' && touch /met`, "ID", newID())
	h.book(t, "left", "", raw(fmt.Sprintf(meet, "left", "right")))
	h.book(t, "right", "", raw(fmt.Sprintf(meet, "right", "left")))
	h.book(t, "wrong", "", raw("echo it is broken >&2; false"))

	c := h.drive(t, "chroot-maintenance", "--jobs", "2", "--json")
	if c.status != 1 || !strings.Contains(c.stderr, "maintenance of 1 of 3 images failed: wrong\n") {
		t.Errorf("exit %d: %s", c.status, c.stderr)
	}
	results := map[string]string{}
	var steps []string
	for line := range strings.Lines(c.stdout) {
		var event struct {
			Image, Event, Step string
			Result             struct{ Result, Generation, Error string }
		}
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		switch event.Event {
		case "step":
			steps = append(steps, event.Image+": "+event.Step)
		case "result":
			results[event.Image] = event.Result.Result
			if event.Image == "wrong" && !strings.Contains(event.Result.Error, "it is broken") {
				t.Errorf("the error: %+v", event)
			}
		}
	}
	if results["left"] != "published" || results["right"] != "published" || results["wrong"] != "failed" || len(results) != 3 {
		t.Errorf("results: %v\n%s", results, c.stderr)
	}
	if !slices.Contains(steps, "left: publish") || !slices.Contains(steps, "wrong: copy the current generation") {
		t.Errorf("steps: %q", steps)
	}

	// A person sees one line an image, drawn over and over, and in the end a
	// table. Each command to the terminal takes it back to the first live line.
	must(t, os.Remove(filepath.Join(h.playbooks, "left.yaml")), os.Remove(filepath.Join(h.playbooks, "right.yaml")))
	h.book(t, "wrong", "", raw("touch /mended"))
	out := shell(t, fmt.Sprintf("TERM=xterm script -qefc '%s --config %s chroot-maintenance --jobs 1' /dev/null", h.driver, h.config))
	for _, want := range []string{"wrong: copy the current generation, 0s\r\n", "\x1b[1A\x1b[J", "wrong: published, generation wrong/", "\nIMAGE ", "\nwrong "} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q at the terminal: %q", want, out)
		}
	}
	if last := out[strings.LastIndex(out, "\nIMAGE "):]; strings.Contains(last, "\x1b") {
		t.Errorf("the table is not the last: %q", last)
	}
}

func TestTheTimersServiceMaintainsTheImages(t *testing.T) {
	needLab(t)
	units := os.Getenv("NSPAWN_RUNNER_UNITS")
	if out := shell(t, "systemd-analyze verify --man=no "+units+"/*.timer 2>&1"); out != "" {
		t.Errorf("systemd-analyze: %s", out)
	}
	h := onHost(t, "overlay")
	h.addImage(t, "nightly", "")
	h.book(t, "nightly", "", raw("touch /by-night"))
	// Only where its configuration lies is another matter here.
	const unit = "nspawn-runner-maintenance"
	dropIn := "/run/systemd/system/" + unit + ".service.d"
	must(t, os.MkdirAll(dropIn, 0o755), os.WriteFile(dropIn+"/test.conf",
		fmt.Appendf(nil, "[Service]\nExecStart=\nExecStart=%s --config %s chroot-maintenance --if-older 12h\n", h.driver, h.config), 0o644))
	shell(t, "cp "+units+"/* /run/systemd/system/ && systemctl daemon-reload")
	t.Cleanup(func() {
		shell(t, "systemctl stop "+unit+".timer; rm -r /run/systemd/system/"+unit+".*; systemctl daemon-reload")
	})
	shell(t, "systemctl start "+unit+".timer && systemctl start "+unit+".service")
	if out := shell(t, "systemctl list-timers --no-legend "+unit+".timer"); !strings.Contains(out, unit+".service") {
		t.Errorf("timers: %q", out)
	}
	if c := h.run(t, h.prepared(t, "nightly"), "ls /by-night"); c.status != 0 {
		t.Errorf("a job after it: %+v\n%s", c, shell(t, "journalctl --no-pager -o cat -u "+unit+".service"))
	}
	log := shell(t, "systemctl start "+unit+".service && journalctl --sync && journalctl --no-pager -o cat -u "+unit+".service")
	wantLog(t, log, "nightly: published, generation nightly/", "nightly: maintained not long ago")
}
