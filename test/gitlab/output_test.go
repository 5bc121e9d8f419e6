package gitlab_test

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"

	"nspawn-runner/test/gitlab"
)

func TestTheJobsLogHasEverythingButConfigsStdoutAndCleanup(t *testing.T) {
	say := func(stage string) []act { return []act{{Stdout: stage + " out\n", Stderr: stage + " err\n"}} }
	f := newFake(t, map[string][]act{
		"config":  {{Stdout: `{"hostname": "secret host"}`, Stderr: "config err\n"}},
		"prepare": say("prepare"), "build_script": say("build_script"), "cleanup": {{Stdout: "cleanup out\n", Stderr: "cleanup err", Exit: 2}},
	})
	var live, runnerLog bytes.Buffer
	f.Log, f.RunnerLog = &live, &runnerLog
	r := f.play(gitlab.Job{})
	for _, line := range []string{"config err", "prepare out", "prepare err", "build_script out", "build_script err"} {
		wantLine(t, r.Log, line)
	}
	if strings.Contains(r.Log, "cleanup out") || strings.Contains(r.Log, "cleanup err") || strings.Contains(r.Log, "{") {
		t.Errorf("log:\n%s", r.Log)
	}
	if live.String() != r.Log {
		t.Error("the log was another one while the job ran")
	}
	for _, line := range []string{"DEBUG: cleanup out cleanup_std=out", "WARNING: cleanup err cleanup_std=err", "WARNING: Cleanup script failed: exit status 2"} {
		wantLine(t, runnerLog.String(), line)
	}
}

func TestOutputIsRawButForItsSecrets(t *testing.T) {
	raw := "\x1b[31mred\x1b[0m\rover section_start:0:x\r\x1b[0K"
	f := newFake(t, map[string][]act{"build_script": {{
		Stdout: raw + "\nthe password is hunter2hunter2!\ntoken glcbt-simulated-1001\nalmost: hunter2hunter",
	}}})
	r := f.play(gitlab.Job{Variables: []gitlab.Variable{{Key: "PASSWORD", Value: "hunter2hunter2", Masked: true}}})
	if !strings.Contains(r.Log, raw) {
		t.Errorf("log: %q", r.Log)
	}
	wantLine(t, r.Log, "the password is [MASKED]!")
	wantLine(t, r.Log, "token [MASKED]")
	if !strings.Contains(r.Log, "almost: hunter2hunter\x1b") {
		t.Errorf("what only began like a secret is gone: %q", r.Log)
	}
}

func TestPastItsLimitTheLogStillDrainsThePipe(t *testing.T) {
	f := newFake(t, map[string][]act{"build_script": {{Stdout: strings.Repeat("0123456789abcdef\n", 6000)}}})
	f.LogLimit = 1000
	r := f.play(gitlab.Job{})
	wantEnd(t, r, gitlab.Success, "", 0)
	wantLine(t, r.Log, "Job's log exceeded limit of 1000 bytes.")
	if len(r.Log) > 1200 {
		t.Errorf("log of %d bytes", len(r.Log))
	}
}

func TestHooksSeeEveryStageAndEveryLine(t *testing.T) {
	f := newFake(t, map[string][]act{"build_script": {{Stdout: "without an end"}}, "cleanup_file_variables": {{Stdout: "\x1b[1mone\x1b[0m\r\ntwo\n"}}})
	var mu sync.Mutex
	var seen []string
	see := func(text string) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, text)
	}
	f.OnStart = func(_ *gitlab.Running, p *gitlab.Process) {
		if p.Pid == 0 || p.Dir == "" || len(p.Env) == 0 || len(p.Args) < 2 {
			t.Errorf("started: %+v", p)
		}
		see("start " + p.Stage + p.SubStage)
	}
	f.OnEnd = func(_ *gitlab.Running, s gitlab.StageResult) { see("end " + s.Stage + s.SubStage) }
	f.OnLine = func(_ *gitlab.Running, line string) { see("line " + line) }
	f.play(gitlab.Job{})
	all := strings.Join(seen, "\n")
	for _, want := range []string{
		"start config\nend config\n", "start runbuild_script\nend runbuild_script\nline without an endCleaning up",
		"start runcleanup_file_variables\nline one\nline two\nend runcleanup_file_variables\nstart cleanup\nend cleanup\nline Job succeeded",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in\n%s", want, all)
		}
	}
}

func TestTenJobsRunAtOnceFromOneRunner(t *testing.T) {
	f := inBash(t)
	var all sync.WaitGroup
	for i := range int64(10) {
		all.Go(func() {
			id := fmt.Sprint(100 + i)
			r := f.play(gitlab.Job{ID: 100 + i, Project: gitlab.Project{Path: "group/p" + id}, Script: []string{`echo "job $CI_JOB_ID"`}})
			wantEnd(t, r, gitlab.Success, "", 0)
			wantLine(t, r.Log, "job "+id)
		})
	}
	all.Wait()
}
