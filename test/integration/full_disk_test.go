package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"nspawn-runner/test/gitlab"
)

// onSmallDisk is a host whose state directory has a small file system of its own.
func onSmallDisk(t *testing.T, kind string) *host {
	t.Helper()
	big := onHost(t, "overlay")
	dir := t.TempDir()
	file, mnt := filepath.Join(dir, "disk"), filepath.Join(dir, "mnt")
	mount := func(size, mkfs string) {
		shell(t, fmt.Sprintf("truncate -s %[1]s %[2]s && %[3]s %[2]s && mkdir %[4]s && mount -o loop %[2]s %[4]s", size, file, mkfs, mnt))
		t.Cleanup(func() { shell(t, "umount "+mnt) })
	}
	if kind == "ext4" {
		mount("100M", "mkfs.ext4 -q -m 0")
		h := big.elsewhere(t, filepath.Join(mnt, "state"), "overlay")
		h.configure(t, "min_free_disk: 0\n")
		return h
	}
	// Data and metadata share their place: when there is none, there is none for
	// either, and to delete something needs metadata.
	mount("1200M", "mkfs.btrfs -q --mixed")
	h := big.elsewhere(t, filepath.Join(mnt, "state"), "btrfs")
	must(t, os.Remove(filepath.Join(h.state, "bookworm")))
	h.makeImage(t, "bookworm", "")
	h.configure(t, "min_free_disk: 0\n")
	return h
}

// fill leaves nothing free on the disk of a host's state directory, until free.
func (h *host) fill(t *testing.T) (free func()) {
	t.Helper()
	dir := filepath.Join(filepath.Dir(h.state), "filler")
	shell(t, "mkdir "+dir+" && cd "+dir+" && for m in 512 256 128 64 32 16 8 4 2 1; do fallocate -l ${m}M $m; done; dd if=/dev/zero of=rest bs=4k; true")
	if mb := h.freeMB(t); mb > 3 { // what btrfs keeps for itself counts
		t.Fatalf("%d MiB are still free", mb)
	}
	return func() { must(t, os.RemoveAll(dir)) }
}

func (h *host) freeMB(t *testing.T) int {
	t.Helper()
	mb, err := strconv.Atoi(strings.TrimSpace(shell(t, "df --output=avail -BM "+h.state+" | tail -n 1 | tr -d ' M'")))
	must(t, err)
	return mb
}

// awaitFreeMB waits for the space to come back: btrfs frees what was removed in
// the background.
func (h *host) awaitFreeMB(t *testing.T, want int) {
	t.Helper()
	await(t, fmt.Sprintf("%d MiB to be free again", want), func() bool {
		if h.backend == "btrfs" {
			shell(t, "btrfs filesystem sync "+h.state)
		}
		return h.freeMB(t) >= want-16
	})
}

func TestOnAFullDiskJobsEndAndAreCleanedUpAndTheSpaceComesBack(t *testing.T) {
	for _, kind := range []string{"ext4", "btrfs"} {
		t.Run(kind, func(t *testing.T) {
			h := onSmallDisk(t, kind)
			h.prepared(t, "bookworm") // what a first job makes is there
			before := h.freeMB(t)

			// A job fills the disk itself.
			r := h.play(t, gitlab.Job{
				Script:      []string{"for m in 512 256 128 64 32 16 8 4 2 1; do fallocate -l ${m}M /var/$m; done; dd if=/dev/zero of=/var/rest bs=4k; false"},
				AfterScript: []string{"echo after"},
			})
			if r.Reason != gitlab.ScriptFailure || r.ExitCode != 1 {
				t.Errorf("%s, code %d: %s", r.Reason, r.ExitCode, r.Log)
			}
			wantLog(t, r.Log, "No space left on device", "\nafter\n")
			if c := r.Last("cleanup"); c.ExitStatus != 0 {
				t.Errorf("cleanup: %+v", c)
			}
			h.awaitFreeMB(t, before)

			// Another one does, before each of the other stages.
			prepare := func() *caller {
				c := h.caller(t, "bookworm")
				if status, output := c.call(t, h.driver, nil, "prepare"); status != 0 {
					t.Fatalf("prepare: exit %d: %s", status, output)
				}
				return c
			}
			c, dead := prepare(), prepare()
			free := h.fill(t)
			status, output := c.call(t, h.driver, nil, "run", script(t, "echo works; echo x >/file"), "build_script")
			if status != 1 {
				t.Errorf("run: exit %d: %s", status, output)
			}
			wantLog(t, output, "works\n", "No space left on device")
			refused := h.caller(t, "bookworm")
			if status, output := refused.call(t, h.driver, nil, "prepare"); status != 2 {
				t.Errorf("prepare: exit %d: %s", status, output)
			} else {
				wantLog(t, output, "no space left on device")
			}
			refused.cleanup(t)
			c.cleanup(t)
			h.checkGone(t, c, refused)
			dead.die()
			refill := h.fillAgain(t)
			h.collect(t)
			h.checkGone(t, dead)
			refill()
			free()
			h.awaitFreeMB(t, before)

			// And with little room a job is refused before it begins.
			h.configure(t, "")
			full := h.drive(t, "prepare", "--id", newID(), "bookworm")
			if full.status != 2 {
				t.Errorf("prepare: %+v", full)
			}
			wantLog(t, full.stderr, "only ", " MiB are free in "+h.state+"; jobs need at least ")
			h.configure(t, "min_free_disk: 0\n")
			if r := h.play(t, gitlab.Job{Script: []string{"echo works >/file"}}); r.Status != gitlab.Success {
				t.Errorf("the next job: %s: %s", r.Reason, r.Log)
			}
		})
	}
}

// fillAgain fills what a cleanup has freed.
func (h *host) fillAgain(t *testing.T) (free func()) {
	t.Helper()
	rest := filepath.Join(filepath.Dir(h.state), "filler2")
	shell(t, "dd if=/dev/zero of="+rest+" bs=64k; dd if=/dev/zero of="+rest+" bs=4k oflag=append conv=notrunc; true")
	return func() { must(t, os.RemoveAll(rest)) }
}

// checkGone checks that nothing is left of jobs.
func (h *host) checkGone(t *testing.T, jobs ...*caller) {
	t.Helper()
	for _, job := range jobs {
		await(t, "the machine of job "+job.id+" to be gone", func() bool {
			left, err := filepath.Glob(filepath.Join(h.state, ".[mt]*", job.id+"*"))
			must(t, err)
			return len(left) == 0
		})
		if units := shell(t, "systemctl list-units --all --plain --no-legend nspawn-runner-"+job.id+".service"); units != "" {
			t.Errorf("left: %s", units)
		}
	}
}
