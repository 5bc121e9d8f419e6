package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// nap is a command that sleeps for days and that no other test on this host has.
func nap(days int) string { return fmt.Sprintf("sleep %d.%d", days*86400, os.Getpid()) }

func TestCancelEndsAllThatABuildStarted(t *testing.T) {
	sleep := nap(987)
	s, _ := fakeStore(t, "slow", "- hosts: all\n  fake: "+sleep+"\n")
	t.Setenv("FAKE_BOOTSTRAP", `[ "$FAKE_SLOW" = no ] || { setsid `+sleep+` & `+sleep+`; }`)
	for _, slow := range []string{"yes", "no"} { // in the bootstrap, in the playbook
		t.Setenv("FAKE_SLOW", slow)
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("a signal came")
		sleeping := make(chan bool, 1)
		go func() {
			sleeping <- eventually(func() bool { return running(sleep) })
			cancel(why)
		}()
		_, err := s.Create(ctx, "slow", CreateOptions{})
		if !errors.Is(err, why) {
			t.Errorf("error is %v", err)
		}
		if !<-sleeping || !eventually(func() bool { return !running(sleep) }) {
			t.Error("its programs were not started, or they still run")
		}
		wantNothing(t, s, "slow")
	}
}

// createForever is what the test binary does for the next test.
func createForever() {
	s := &Store{StateDir: os.Getenv("TEST_CREATE")}
	_, _ = s.Create(context.Background(), "sid", CreateOptions{})
}

func TestKilledBuildIsCollectedByTheNext(t *testing.T) {
	s, _ := fakeStore(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	sleep := nap(876)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "TEST_CREATE="+s.StateDir, "FAKE_BOOTSTRAP=setsid "+sleep+" & "+sleep)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if !eventually(func() bool { return running(sleep) }) {
		t.Error("the build did not start")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if !eventually(func() bool { return !running(sleep) }) {
		t.Error("its programs still run")
	}
	if images, err := s.List(); err != nil || len(images) != 0 {
		t.Errorf("half an image is listed: %v, %v", images, err)
	}
	wantOnly(t, s, "sid", create(t, s, "sid"))
}

func TestOneBuildOfAnImageAtATime(t *testing.T) {
	s, _ := fakeStore(t)
	first := create(t, s, "sid")
	var steps []string
	s.Progress = told(&steps)
	editing, done := make(chan bool), make(chan error)
	go func() {
		_, err := s.Edit(t.Context(), "sid", func(ctx context.Context, root string) error {
			editing <- true
			<-editing
			write(t, filepath.Join(root, "etc/one"), "")
			return nil
		})
		done <- err
	}()
	<-editing
	if !s.Building("sid") || s.Building("other") {
		t.Error("it is not said to be built, or another one is")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := s.Edit(ctx, "sid", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the second build did not wait: %v", err)
	}
	if !slices.ContainsFunc(steps, func(step string) bool { return strings.HasPrefix(step, "wait for a build by process ") }) {
		t.Errorf("steps are %q", steps)
	}
	if current, release, err := s.Hold(t.Context(), "sid"); err != nil || current != first {
		t.Errorf("a job has to wait for a build: %v, %v", current, err)
	} else {
		release()
	}
	editing <- true
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if s.Building("sid") {
		t.Error("it is said to be built still")
	}
	last, err := s.Edit(t.Context(), "sid", func(ctx context.Context, root string) error { return nil })
	if err != nil || !exists(filepath.Join(last.Path, "etc/one")) {
		t.Errorf("the next build does not go on from it: %v", err)
	}
}

func TestOfManyCreationsOneWins(t *testing.T) {
	s, _ := fakeStore(t)
	errs := make(chan error)
	for range 5 {
		go func() {
			_, err := s.Create(t.Context(), "sid", CreateOptions{})
			errs <- err
		}()
	}
	won := 0
	for range 5 {
		if err := <-errs; err == nil {
			won++
		} else if !strings.Contains(err.Error(), "exists already") {
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d creations of one image succeeded", won)
	}
}
