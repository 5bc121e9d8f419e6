package gitlab_test

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nspawn-runner/test/gitlab"
)

func TestAStageTellsWhatItCost(t *testing.T) {
	// More than any driver: forked from here, each begins as a copy of this.
	ballast := allocate(300)
	defer unix.Munmap(ballast)
	f := newFake(t, map[string][]act{
		"prepare":      {{Allocate: 100, Hang: true}},
		"build_script": {{Spin: true}},
		"cleanup":      {{Allocate: 500}},
	})
	f.at("prepare", func(job *gitlab.Running) {
		// Time for a look at what it uses, and that is all it ever will.
		time.AfterFunc(100*time.Millisecond, func() { job.Process().Signal(syscall.SIGTERM) })
	})
	r := f.play(gitlab.Job{})

	if peak := r.Last("prepare").PeakRSS >> 20; peak < 100 || peak > 250 {
		t.Errorf("prepare used 100 MiB and is said to have used %d", peak)
	}
	if peak := r.Last("cleanup").PeakRSS >> 20; peak < 500 || peak > 700 {
		t.Errorf("cleanup used 500 MiB and is said to have used %d", peak)
	}
	s := r.Last("build_script")
	if peak := s.PeakRSS >> 20; peak < 1 || peak > 100 {
		t.Errorf("build_script used little and is said to have used %d MiB", peak)
	}
	if cpu := s.User + s.System; cpu < spun || cpu > s.Elapsed*2 {
		t.Errorf("build_script: %v of CPU in %v", cpu, s.Elapsed)
	}
}

func TestAResultIsReadableJSON(t *testing.T) {
	r := newFake(t, map[string][]act{"build_script": {{Signal: 9}}}).play(gitlab.Job{})
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"status":"failed"`, `"reason":"runner_system_failure"`, `"sub_stage":"build_script"`, `"signal":"SIGKILL"`, `"elapsed_seconds":0.`, `"peak_rss":`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
}
