package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/lock"
)

// killedPull is what the test binary does with TEST_KILL_AT: it gets an image, or removes it,
// and is killed at a mark.
func killedPull() {
	number, _ := strconv.ParseInt(os.Getenv("TEST_KILL_AT"), 10, 64)
	var passed atomic.Int64
	fault.Hook = func(mark string) {
		if passed.Add(1) == number {
			fmt.Println(mark)
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	self, _ := os.Executable()
	top := os.Getenv("TEST_STATE")
	s := &Store{
		Dir: filepath.Join(top, ".oci"), Trash: filepath.Join(top, ".trash"), Program: self,
		Rules: Rules{Images: []string{"*"}, Insecure: []string{os.Getenv("TEST_REGISTRY")}}, CacheMax: 1 << 30, ImageMax: 64 << 20,
		Environment: func(string) string { return "" }, InUse: func(string) bool { return false },
	}
	image, release, err := s.Get(context.Background(), Request{Name: os.Getenv("TEST_IMAGE")})
	if err == nil {
		release()
		_, err = s.Remove(context.Background(), image.Digest)
	}
	if err != nil {
		fmt.Println(err)
	}
}

func TestWheneverAPullOrARemovalIsKilledAnImageIsWholeOrGone(t *testing.T) {
	h := newHub(t)
	ref := h.push(t, "x", imageOf(t, []string{"a", "1"}, []string{"b", "2"}))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for number, killed := 1, true; killed; number++ {
		s, _ := storeOf(t, h)
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), "TEST_KILL_AT="+strconv.Itoa(number), "TEST_STATE="+filepath.Dir(s.Dir), "TEST_REGISTRY="+h.host, "TEST_IMAGE="+ref)
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		killed = errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
		if err != nil && !killed {
			t.Fatalf("%v: %s", err, out)
		}
		mark := strings.TrimSpace(string(out))
		if t.Logf("%2d %s", number, mark); number > 60 || !killed && number < 10 {
			t.Fatalf("%d marks", number)
		}
		// The process that unpacks ends by itself, and locks the pull until then.
		locks, _ := filepath.Glob(filepath.Join(s.pulls(), "*.lock"))
		for _, path := range locks {
			held, err := lock.File(t.Context(), path, lock.Exclusive)
			if err != nil {
				t.Fatal(err)
			}
			held.Close()
		}
		if images, err := s.List(); err != nil || len(images) > 1 || len(images) == 1 && (text(t, images[0], "a") != "1" || text(t, images[0], "b") != "2") {
			t.Errorf("killed at %q: %v, %v", mark, images, err)
		}
		if number%2 == 0 {
			leftovers, err := s.Leftovers()
			if err != nil {
				t.Errorf("killed at %q: %v", mark, err)
			}
			for _, l := range leftovers {
				if err := l.Remove(t.Context()); err != nil {
					t.Errorf("killed at %q: %s: %v", mark, l.Path, err)
				}
			}
		} else if image := get(t, s, Request{Name: ref}); text(t, image, "b") != "2" {
			t.Errorf("killed at %q: the next job gets another image", mark)
		}
		_ = os.RemoveAll(s.Trash) // the next job empties it
		wantTidy(t, s)
		if leftovers, err := s.Leftovers(); err != nil || len(leftovers) > 0 {
			t.Errorf("killed at %q: left are %v, %v", mark, leftovers, err)
		}
	}
}
