package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"nspawn-runner/runner/fault"
)

// killable are the operations that are killed at each of their marks. They run in
// a process of their own: this test binary (see TestMain).
var killable = map[string]struct {
	begin func(*testing.T, *Store) // makes what there is before
	do    func(context.Context, *Store) error
	want  []string // versions that may be published after a kill; "" is none
	// environment of the operation: what the fakes do
	environment []string
}{
	"create": {
		begin: func(t *testing.T, s *Store) {},
		do:    func(ctx context.Context, s *Store) error { return second(s.Create(ctx, "sid", CreateOptions{})) },
		want:  []string{"", "new"},
	},
	"create, and keep a base": {
		begin: func(t *testing.T, s *Store) {},
		do:    createWithBases, want: []string{"", "new"},
	},
	"create from a base": {
		begin: func(t *testing.T, s *Store) {
			t.Setenv("FAKE_VERSION", "new")
			if err := second((&Store{StateDir: s.StateDir, BaseMaxAge: time.Hour}).Create(t.Context(), "other", CreateOptions{})); err != nil {
				t.Fatal(err)
			}
			if err := second(s.Remove(t.Context(), "other")); err != nil {
				t.Fatal(err)
			}
		},
		do: createWithBases, want: []string{"", "new"},
	},
	"create, and replace a base that is too old": {
		begin: func(t *testing.T, s *Store) {
			t.Setenv("FAKE_VERSION", "older")
			if err := createWithBases(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			if err := second(s.Remove(t.Context(), "sid")); err != nil {
				t.Fatal(err)
			}
			bases, _ := filepath.Glob(filepath.Join(s.bases().Dir, "*", "base.json"))
			if len(bases) != 1 {
				t.Fatalf("bases: %q", bases)
			}
			write(t, bases[0], `{"boot": "another"}`)
		},
		do: createWithBases, want: []string{"", "new"},
	},
	"maintain": {begin: twoGenerations, do: maintainSid, want: []string{"old", "new"}},
	"maintain with a failing playbook": {
		begin: twoGenerations, do: maintainSid, want: []string{"old"},
		environment: []string{"FAKE_VERSION=broken", "FAKE_PLAY=false"},
	},
	"maintain a second time with a failing playbook": {
		begin: func(t *testing.T, s *Store) {
			twoGenerations(t, s)
			t.Setenv("FAKE_PLAY", "false")
			if err := maintainSid(t.Context(), s); err == nil {
				t.Fatal("no error")
			}
		},
		do: maintainSid, want: []string{"old"},
		environment: []string{"FAKE_VERSION=broken", "FAKE_PLAY=false"},
	},
	"maintain what does not change": {
		begin: twoGenerations, do: maintainSid, want: []string{"old"},
		environment: []string{"FAKE_VERSION=old", `FAKE_TALLY={"OK": 1}`},
	},
	"recreate": {
		begin: twoGenerations, want: []string{"old", "new"},
		do: func(ctx context.Context, s *Store) error {
			_, _, err := s.Maintain(ctx, "sid", MaintainOptions{Bootstrap: ofSid.Bootstrap, Recreate: true})
			return err
		},
	},
	"maintain a chroot of the original": {begin: plainChroot, do: maintainSid, want: []string{"old", "new"}},
	"edit": {
		begin: twoGenerations, want: []string{"old", "new"},
		do: func(ctx context.Context, s *Store) error {
			return second(s.Edit(ctx, "sid", func(_ context.Context, root string) error {
				for _, file := range versionFiles {
					if err := os.WriteFile(filepath.Join(root, file), []byte("new\n"), 0o644); err != nil {
						return err
					}
				}
				return nil
			}))
		},
	},
	"roll back": {
		begin: twoGenerations, want: []string{"old", "older"},
		do: func(ctx context.Context, s *Store) error {
			_, _, err := s.Rollback(ctx, "sid", "")
			return err
		},
	},
	"prune": {
		begin: twoGenerations, want: []string{"old"},
		do: func(ctx context.Context, s *Store) error { return second(s.Prune(ctx, "sid", 1)) },
	},
	"remove": {
		begin: twoGenerations, want: []string{"old", ""},
		do: func(ctx context.Context, s *Store) error { return second(s.Remove(ctx, "sid")) },
	},
	"remove a chroot of the original": {
		begin: plainChroot, want: []string{"old", ""},
		do: func(ctx context.Context, s *Store) error { return second(s.Remove(ctx, "sid")) },
	},
}

func second[T any](_ T, err error) error { return err }

func createWithBases(ctx context.Context, s *Store) error {
	with := *s
	with.BaseMaxAge = time.Hour
	return second(with.Create(ctx, "sid", CreateOptions{}))
}

func maintainSid(ctx context.Context, s *Store) error {
	_, _, err := s.Maintain(ctx, "sid", ofSid)
	return err
}

// versionFiles hold the same text in a tree that is whole.
var versionFiles = []string{"etc/version", "usr/bin/version"}

// A fake bootstrap and a fake playbook write the version, into the first file
// first; FAKE_PLAY is how the playbook ends.
const (
	killBootstrap = `for file in etc usr/bin; do echo $FAKE_VERSION > $root/$file/version; done`
	killPlaybook  = "- hosts: all\n  fake: for file in etc usr/bin; do echo $FAKE_VERSION > $1/$file/version; done; eval $FAKE_PLAY\n"
)

// twoGenerations makes an image with the versions older and, current, old.
func twoGenerations(t *testing.T, s *Store) {
	t.Setenv("FAKE_VERSION", "older")
	create(t, s, "sid")
	t.Setenv("FAKE_VERSION", "old")
	if err := maintainSid(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

// plainChroot makes a chroot as the Python original leaves it.
func plainChroot(t *testing.T, s *Store) {
	t.Setenv("FAKE_VERSION", "old")
	generation := create(t, s, "sid")
	public := filepath.Join(s.StateDir, "sid")
	if err := errors.Join(os.Remove(public), os.Rename(generation.Path, public), os.RemoveAll(filepath.Dir(generation.Path))); err != nil {
		t.Fatal(err)
	}
}

// killedOperation is what the test binary does under TEST_KILLABLE.
func killedOperation() {
	number, _ := strconv.ParseInt(os.Getenv("TEST_KILL_AT"), 10, 64)
	var passed atomic.Int64
	fault.Hook = func(mark string) {
		if passed.Add(1) == number {
			fmt.Println(mark)
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	s := &Store{
		StateDir: os.Getenv("TEST_STATE"), PlaybookDirs: []string{os.Getenv("TEST_PLAYBOOKS")},
		InUse: func(string) bool { return false },
	}
	if err := killable[os.Getenv("TEST_KILLABLE")].do(context.Background(), s); err != nil {
		fmt.Println(err)
	}
}

// published is the version of the chroot, which must be whole; "" if there is none.
func published(t *testing.T, s *Store) string {
	t.Helper()
	current, err := s.Current("sid")
	if errors.Is(err, ErrNoChroot) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := Check(current.Path); err != nil {
		t.Error(err)
	}
	first, last := read(t, filepath.Join(current.Path, versionFiles[0])), read(t, filepath.Join(current.Path, versionFiles[1]))
	if first != last {
		t.Errorf("half of the chroot is %q, half %q", first, last)
	}
	return strings.TrimSpace(first)
}

func TestWhateverIsKilledAtAnyMomentTheChrootIsWholeAndTheNextBuildCleansUp(t *testing.T) {
	for name, operation := range killable {
		t.Run(name, func(t *testing.T) {
			s, _ := fakeStore(t, "sid", killPlaybook)
			s.InUse = func(string) bool { return false }
			smallDisk(t, s, 4000) // where a sync costs nothing
			t.Setenv("FAKE_BOOTSTRAP", killBootstrap)
			top := s.StateDir
			s.StateDir = filepath.Join(top, "begin")
			if err := os.Mkdir(s.StateDir, 0o700); err != nil {
				t.Fatal(err)
			}
			operation.begin(t, s)
			for number, killed := 1, true; killed; number++ {
				s.StateDir = filepath.Join(top, strconv.Itoa(number))
				if out, err := exec.Command("cp", "-a", filepath.Join(top, "begin"), s.StateDir).CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				var mark string
				mark, killed = kill(t, s, name, number, operation.environment)
				if t.Logf("%2d %s", number, mark); number > 60 {
					t.Fatal("it does not come to an end")
				}
				if version := published(t, s); !slices.Contains(operation.want, version) {
					t.Errorf("killed at %q: published is %q", mark, version)
				}
				t.Setenv("FAKE_VERSION", "next")
				t.Setenv("FAKE_PLAY", "true")
				if err := maintainSid(t.Context(), s); err != nil {
					t.Errorf("killed at %q: the next maintenance: %v", mark, err)
				}
				if version := published(t, s); version != "next" {
					t.Errorf("killed at %q: published after the next maintenance is %q", mark, version)
				}
				wantTidy(t, s, mark)
				if strings.Contains(name, "base") {
					wantWholeBase(t, s, mark)
				}
				if err := os.RemoveAll(s.StateDir); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// kill runs an operation until its mark of that number, and says which that is
// called, or how the operation ended if it has no such mark.
func kill(t *testing.T, s *Store, name string, number int, environment []string) (mark string, killed bool) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "FAKE_VERSION=new", "TEST_KILLABLE="+name, "TEST_KILL_AT="+strconv.Itoa(number),
		"TEST_STATE="+s.StateDir, "TEST_PLAYBOOKS="+s.PlaybookDirs[0])
	cmd.Env = append(cmd.Env, environment...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return strings.TrimSpace(string(out)), true
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return "the end: " + string(out), false
}

// wantTidy checks that nothing is in the state directory that is not part of an
// image with its last two generations. The trash is emptied by the next job.
func wantTidy(t *testing.T, s *Store, mark string) {
	t.Helper()
	var got []string
	for _, dir := range []string{"", ".generations", ".generations/sid"} {
		entries, err := readDir(filepath.Join(s.StateDir, dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			name := filepath.Join(dir, entry.Name())
			if stamp, is := strings.CutSuffix(name, recordSuffix); is && !exists(filepath.Join(s.StateDir, stamp)) {
				t.Errorf("killed at %q: a record without a generation: %s", mark, name)
			}
			if filepath.Base(dir) == "sid" && entry.Name()[0] != '.' {
				continue
			}
			got = append(got, name)
		}
	}
	want := []string{".generations", ".logs", ".trash", ".bases", "sid", ".generations/sid", ".generations/sid/.build", ".generations/sid/.hold"}
	if got = slices.DeleteFunc(got, func(name string) bool { return slices.Contains(want, name) }); len(got) > 0 {
		t.Errorf("killed at %q: left are %q", mark, got)
	}
	if all, err := s.Generations("sid"); err != nil || len(all) > KeptGenerations {
		t.Errorf("killed at %q: generations are %v, %v", mark, all, err)
	}
}

// wantWholeBase checks that what another image would be a copy of is whole.
func wantWholeBase(t *testing.T, s *Store, mark string) {
	t.Helper()
	with := *s
	with.BaseMaxAge = time.Hour
	t.Setenv("FAKE_VERSION", "new")
	if _, err := with.Create(t.Context(), "another", CreateOptions{}); err != nil {
		t.Errorf("killed at %q: another image: %v", mark, err)
		return
	}
	for _, file := range versionFiles {
		if got := read(t, filepath.Join(with.StateDir, "another", file)); got != "new\n" {
			t.Errorf("killed at %q: another image has the version %q", mark, got)
		}
	}
}
