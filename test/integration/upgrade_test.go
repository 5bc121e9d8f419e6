package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"nspawn-runner/test/gitlab"
)

// An upgrade replaces the program while it runs. Another release may have other commands for what
// the program has itself do, so that must be done by the file that is running. Here the new
// program can do nothing.
func TestAProgramThatIsReplacedGoesOnWithItsOwnFile(t *testing.T) {
	h := onHost(t, "overlay")
	program := filepath.Join(t.TempDir(), "nspawn-runner")
	shell(t, "cp "+faults()+" "+program)
	c := h.caller(t, "bookworm")
	c.begin(t, program, []string{"NSPAWN_RUNNER_STOP_AT=machine: service started"}, "prepare")
	await(t, "the stop of prepare", func() bool {
		return shell(t, "ps -C nspawn-runner -o stat=,args= | grep '^T.*"+program+"' || true") != ""
	})
	shell(t, "install /bin/false "+program+".new && mv "+program+".new "+program+" && pkill -CONT -f ^"+program)
	if status, output := c.ended(t); status != 0 {
		t.Fatalf("prepare: exit %d: %s", status, output)
	}
	if status, output := c.call(t, h.driver, nil, "run", script(t, "echo executed"), "build_script"); output != "executed\n" {
		t.Errorf("run: exit %d: %s", status, output)
	}
	if status, output := c.call(t, h.driver, nil, "cleanup"); status != 0 {
		t.Errorf("cleanup: exit %d: %s", status, output)
	}
}

// The Python original keeps a chroot as /var/lib/nspawn-runner/NAME, on btrfs as
// a subvolume, and its playbook perhaps beside it. Who replaces the program goes
// on with these.
func TestTheOriginalsChrootIsMaintainedWhileTenJobsRunOnIt(t *testing.T) {
	needLab(t)
	onDisks(t, func(t *testing.T, h *host) {
		plain := filepath.Join(h.state, "plain")
		copied := "cp -al $(readlink -f " + filepath.Join(h.state, "bookworm") + ") " + plain
		if h.backend == "btrfs" {
			copied = "btrfs -q subvolume snapshot " + filepath.Join(h.state, "bookworm") + "/ " + plain
		}
		shell(t, copied+" && echo original > "+plain+"/etc/version")
		t.Cleanup(func() { h.removeImage(t, "plain") })
		inode := shell(t, "stat -c '%d %i' "+plain)
		h.book(t, "plain", "", raw("echo maintained > /etc/version"))
		shell(t, "mv "+filepath.Join(h.playbooks, "plain.yaml")+" "+plain+".yaml")
		t.Cleanup(func() { os.Remove(plain + ".yaml") })
		if c := h.drives(t, "chroot-list"); !strings.Contains("\n"+c.stdout, "\nplain "+plain+"\n") {
			t.Errorf("listed: %s", c.stdout)
		}

		var maintained atomic.Bool
		var jobs sync.WaitGroup
		var ran [2]atomic.Int64
		began := make(chan struct{}, 10)
		for range cap(began) {
			jobs.Go(func() {
				for first := true; first || !maintained.Load(); first = false {
					runner := h.runner()
					r, err := runner.Run(t.Context(), gitlab.Job{ID: newNumber(), Image: gitlab.Image{Name: "plain"}, Script: []string{"echo version: $(cat /etc/version)", "sleep 3"}})
					if err != nil || r.Status != gitlab.Success {
						t.Errorf("%v %s\n%s", err, r.Status, r.Log)
					}
					if first {
						began <- struct{}{}
					}
					if strings.Contains(r.Log, "version: original") {
						ran[0].Add(1)
					} else if strings.Contains(r.Log, "version: maintained") {
						ran[1].Add(1)
					} else {
						t.Errorf("a job ran on neither:\n%s", r.Log)
					}
				}
			})
		}
		<-began // others are running now, or about to
		c := h.drives(t, "chroot-maintenance", "plain")
		wantLog(t, c.stderr, "plain: published, generation plain/")
		maintained.Store(true)
		jobs.Wait()
		t.Logf("%d jobs ran on the original's chroot, %d on the maintained one", ran[0].Load(), ran[1].Load())

		if c := h.run(t, h.prepared(t, "plain"), "cat /etc/version"); c.stdout != "maintained\n" {
			t.Errorf("a job after the maintenance: %+v", c)
		}
		first := filepath.Join(h.state, ".generations/plain/00000000T000000Z")
		if got := shell(t, "stat -c '%d %i' "+first+" && cat "+first+"/etc/version"); got != inode+"original\n" {
			t.Errorf("the first generation is another tree than the original's: %q, %q", inode, got)
		}
		if h.backend == "btrfs" {
			if got := shell(t, fmt.Sprintf("stat -c %%i %s/", plain)); got != "256\n" {
				t.Errorf("the second generation is no subvolume: inode %s", got)
			}
		}
		h.drives(t, "chroot-rollback", "plain")
		if c := h.run(t, h.prepared(t, "plain"), "cat /etc/version"); c.stdout != "original\n" {
			t.Errorf("a job after a rollback: %+v", c)
		}
	})
}
