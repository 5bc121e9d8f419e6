package integration

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"nspawn-runner/test/gitlab"
)

// journalOf returns what journalctl finds of a job: entries by their fields.
func journalOf(t *testing.T, id int64) (entries []map[string]string) {
	t.Helper()
	out := shell(t, fmt.Sprintf("journalctl --sync; journalctl --quiet --output=json NSPAWN_RUNNER_JOB=%d", id))
	for line := range strings.Lines(out) {
		var fields map[string]any
		must(t, json.Unmarshal([]byte(line), &fields))
		entry := map[string]string{}
		for name, value := range fields {
			entry[name] = fmt.Sprint(value)
		}
		entries = append(entries, entry)
	}
	return entries
}

// findEntry returns the entry with a text in its message that has these fields.
func findEntry(t *testing.T, entries []map[string]string, text string, fields ...string) {
	t.Helper()
	for _, entry := range entries {
		if !strings.Contains(entry["MESSAGE"], text) {
			continue
		}
		for _, field := range fields {
			name, want, _ := strings.Cut(field, "=")
			if entry["NSPAWN_RUNNER_"+name] != want {
				t.Errorf("%q: %s is %q, want %q", entry["MESSAGE"], name, entry["NSPAWN_RUNNER_"+name], want)
			}
		}
		return
	}
	t.Errorf("no line with %q in", text)
	for _, entry := range entries {
		t.Log(entry["MESSAGE"])
	}
}

func TestTheJournalHasAllOfAJobUnderItsFields(t *testing.T) {
	h := onHost(t, "overlay")
	h.addService(t, "any", anyPlaybook, "")
	id := newNumber()
	r := h.play(t, gitlab.Job{
		ID: id, Project: gitlab.Project{ID: 4711},
		Script:   []string{"echo said by the job >/dev/console", "exit 3"},
		Services: []gitlab.Image{{Name: "any:\n\x1b[31m1", Alias: "any", Command: []string{"sh", "-c", "echo said by the service >/dev/console"}}},
	})
	if r.ExitCode != 3 {
		t.Fatal(r.Log)
	}
	entries := journalOf(t, id)
	of := []string{"PROJECT=4711", fmt.Sprintf("JOB=%d", id)}
	findEntry(t, entries, "began: image bookworm, generation 20", append(of, "IMAGE=bookworm", "STAGE=prepare")...)
	findEntry(t, entries, "said by the job", append(of, "IMAGE=bookworm", "STAGE=console", "SERVICE=")...)
	findEntry(t, entries, "said by the service", append(of, "IMAGE=any", "STAGE=console", "SERVICE=any:___31m1")...)
	findEntry(t, entries, "ended: script_failure: ", append(of, "IMAGE=bookworm", "STAGE=cleanup", "RESULT=script_failure")...)

	id = newNumber()
	h.play(t, gitlab.Job{ID: id, Image: gitlab.Image{Name: "none\x1b[31m\nNSPAWN_RUNNER_IMAGE=bookworm"}})
	entries = journalOf(t, id)
	findEntry(t, entries, "ended before it began: ", "STAGE=prepare", "IMAGE=", "RESULT=script_failure", "REASON=no_image")
	if len(entries) != 1 || strings.ContainsAny(entries[0]["MESSAGE"], "\x1b\n") {
		t.Errorf("%q", entries)
	}

	id = newNumber()
	h.play(t, gitlab.Job{ID: id, Script: []string{"systemctl poweroff --force --force; sleep 60"}})
	findEntry(t, journalOf(t, id), "build_script: machine run-", "STAGE=run", "IMAGE=bookworm", "REASON=machine_died", "RESULT=system_failure", "PRIORITY=")
}

func TestJobsRunWithoutAJournalAndBesideOneThatHangs(t *testing.T) {
	needLab(t)
	h := onHost(t, "overlay")
	played := func(why string) time.Duration {
		began := time.Now()
		if r := h.play(t, gitlab.Job{Script: []string{"true"}}); r.Status != gitlab.Success {
			t.Errorf("%s: %s\n%s", why, r.Status, r.Log)
		}
		return time.Since(began)
	}
	const socket = "/run/systemd/journal/socket"
	must(t, os.Rename(socket, socket+".away"))
	t.Cleanup(func() { _ = os.Rename(socket+".away", socket) }) // if the test ends before
	played("no journal")
	must(t, os.Rename(socket+".away", socket))

	// It stops, and its queue gets full.
	pid := strings.TrimSpace(shell(t, "systemctl show --property=MainPID --value systemd-journald"))
	shell(t, "kill -STOP "+pid)
	defer func() { shell(t, "kill -CONT "+pid) }()
	queue, err := net.Dial("unixgram", socket)
	must(t, err)
	defer queue.Close()
	for err == nil {
		must(t, queue.SetWriteDeadline(time.Now().Add(100*time.Millisecond)))
		_, err = queue.Write([]byte("MESSAGE=fills the queue\n"))
	}
	if took := played("a journal that hangs"); took > 30*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestTheJournalAndTheCountersHaveAllOfAJobWhoseGitlabRunnerWasKilled(t *testing.T) {
	h := onHost(t, "overlay")
	image := h.serves(t, "").pushLayers(t, "team/static", exposing("8001"), programLayer(t))
	before := h.metrics(t)
	c := h.caller(t, "bookworm")
	c.order(t, map[string]any{"name": image})
	if status, output := c.call(t, h.driver, nil, "prepare"); status != 0 {
		t.Fatalf("exit %d: %s", status, output)
	}
	c.call(t, h.driver, nil, "run", script(t, "echo said by the job >/dev/console"), "build_script")
	id, err := strconv.ParseInt(c.id, 10, 64)
	must(t, err)
	await(t, "the console's line in the journal", func() bool {
		return slices.ContainsFunc(journalOf(t, id), func(entry map[string]string) bool { return strings.Contains(entry["MESSAGE"], "said by the job") })
	})
	c.die()
	h.drives(t, "gc")
	entries, of := journalOf(t, id), []string{"PROJECT=7", "JOB=" + c.id}
	findEntry(t, entries, "began: image bookworm", append(of, "IMAGE=bookworm", "STAGE=prepare")...)
	findEntry(t, entries, "said by the job", append(of, "IMAGE=bookworm", "STAGE=console")...)
	findEntry(t, entries, "listening at 8001", append(of, "IMAGE="+image, "STAGE=console", "SERVICE="+image)...)
	findEntry(t, entries, "ended: system_failure: its cleanup was not called", append(of, "IMAGE=bookworm", "RESULT=system_failure", "REASON=abandoned")...)
	after := h.metrics(t)
	for _, image := range []string{"bookworm", "(registry)"} {
		if used := `job_cpu_seconds_total{image="` + image + `"}`; before[used] >= after[used] {
			t.Errorf("%s did not grow from %v", used, before[used])
		}
	}
	wantGrown(t, before, after, map[string]float64{`failures_total{reason="abandoned"}`: 1, `jobs_total{image="bookworm",result="system_failure"}`: 1})
}
