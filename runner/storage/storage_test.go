package storage

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/fault"
)

func TestBackendsHaveTheNamesOfTheConfiguration(t *testing.T) {
	for _, name := range []string{"btrfs", "overlay", "tmpfs"} {
		if b, err := Named(name); err != nil || b.Name() != name {
			t.Errorf("%s: %v, %v", name, b, err)
		}
	}
	if _, err := Named("zfs"); err == nil || !strings.Contains(err.Error(), "btrfs, overlay, tmpfs") {
		t.Errorf("%v", err)
	}
}

func TestRemoveOfNothingIsSuccess(t *testing.T) {
	if err := Remove(context.Background(), filepath.Join(t.TempDir(), "nothing")); err != nil {
		t.Error(err)
	}
}

func TestRemoveDoesNotFollowLinks(t *testing.T) {
	dir := t.TempDir()
	shell(t, dir, "mkdir keep tree; touch keep/file; ln -s ../keep tree/dir; ln -s ../keep/file tree/file; ln -s keep link")
	for _, name := range []string{"tree", "link"} {
		if err := Remove(context.Background(), filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	if got := shell(t, dir, "find . | sort | tr '\\n' ' '"); got != ". ./keep ./keep/file " {
		t.Errorf("left: %s", got)
	}
}

func TestRemoveTakesHardTrees(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	shell(t, dir, `mkdir -p tree/immutable tree/closed; touch tree/immutable/file tree/append $'tree/new\nline' $'tree/\xff'
mkfifo tree/fifo; chattr +i tree/immutable/file tree/immutable; chattr +a tree/append; chmod 0 tree/closed
python3 - <<'END'
import os
os.chdir("tree")
for i in range(3000):
    os.mkdir("deep"); os.chdir("deep")
open("file", "w")
os.system("chattr +i file; chattr +a .")
END`)
	if err := Remove(context.Background(), filepath.Join(dir, "tree")); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "tree")); err == nil {
		t.Error("it is still there")
	}
}

// The directory's end is deeper than a process may have open files, by far.
func TestRemoveOfADeepTreeHasFewFilesOpen(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	shell(t, dir, `python3 -c '
import os
os.mkdir("tree"); os.chdir("tree")
for i in range(2000): os.mkdir("d"); os.mkdir("e"); os.chdir("d")'`)
	moved, most := 0, 0
	fault.Hook = func(string) {
		open, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Error(err)
		}
		moved, most = moved+1, max(most, len(open))
	}
	t.Cleanup(func() { fault.Hook = nil })
	if err := Remove(t.Context(), filepath.Join(dir, "tree")); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "tree")); err == nil {
		t.Error("it is still there")
	}
	if moved < 8 || most > maxDepth+50 {
		t.Errorf("%d directories were moved, and %d files open", moved, most)
	}
}

// gc and a cleanup may be at work on one tree.
func TestTwoRemoveOneTree(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	for range 5 {
		shell(t, dir, `mkdir -p tree/{1..20}/{1..20}; touch tree/{1..20}/{1..20}/file; python3 -c '
import os
os.chdir("tree")
for i in range(450): os.mkdir("d"); os.chdir("d")'`)
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				if err := Remove(t.Context(), filepath.Join(dir, "tree")); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if _, err := os.Lstat(filepath.Join(dir, "tree")); err == nil {
			t.Fatal("it is still there")
		}
	}
}

// Beside another one, a directory may get something after it was found empty.
func TestADirectoryIsRemovedWithWhatAnotherMovesUpIntoIt(t *testing.T) {
	tree := filepath.Join(t.TempDir(), "tree")
	shell(t, filepath.Dir(tree), "mkdir tree")
	dir, err := os.Open(tree)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	r, moves := remover{ctx: t.Context()}, 0
	err = r.emptyAndDrop(dir, 1, func() error {
		if moves++; moves <= 3 {
			shell(t, tree, "mkdir -p up/in; touch up/in/file")
		}
		return unix.Rmdir(tree)
	})
	if _, there := os.Lstat(tree); err != nil || there == nil || moves != 4 {
		t.Errorf("after %d moves: %v", moves, err)
	}
}

func TestARemovalEndsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	shell(t, dir, "mkdir -p tree/{a,b}/{c,d}; touch tree/{a,b}/{c,d}/file")
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("no time left")
	cancel(gone)
	if err := Remove(ctx, filepath.Join(dir, "tree")); !errors.Is(err, gone) {
		t.Errorf("%v", err)
	}
	if files := shell(t, dir, "find tree -type f | wc -l"); files != "4\n" {
		t.Errorf("of 4 files are left: %s", files)
	}
}

func TestCloneKeepsWhatATreeIsMadeOf(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	shell(t, dir, `mkdir tree; echo x > tree/a; ln tree/a tree/b; chown 7:8 tree/a; chmod 4755 tree/a; ln -s /nowhere tree/link; truncate -s 10M tree/hole; setfattr -n user.x -v y tree/a 2>/dev/null || true`)
	if err := Clone(context.Background(), filepath.Join(dir, "tree"), filepath.Join(dir, "copy")); err != nil {
		t.Fatal(err)
	}
	for _, tree := range []string{"tree", "copy"} {
		got := shell(t, filepath.Join(dir, tree), `stat -c '%u %g %a %h' a; readlink link; test a -ef b && echo same; test $(du -k hole | cut -f1) -lt 100 && echo sparse`)
		if got != "7 8 4755 2\n/nowhere\nsame\nsparse\n" {
			t.Errorf("%s: %q", tree, got)
		}
	}
}

// TestSubvolumes runs on a btrfs of its own.
func TestSubvolumesAreMadeSnapshotAndRemovedWithWhatIsInside(t *testing.T) {
	needRoot(t)
	for _, program := range []string{"mkfs.btrfs", "losetup"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("needs btrfs-progs; the lab has them")
		}
	}
	dir := t.TempDir()
	shell(t, dir, "mkdir mnt; truncate -s 200M img; mkfs.btrfs -q img; mount -o loop img mnt")
	t.Cleanup(func() { shell(t, dir, "umount mnt") })
	top := filepath.Join(dir, "mnt")
	ctx := context.Background()
	must := func(errs ...error) {
		t.Helper()
		for _, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	must(Create(filepath.Join(top, "a")))
	must(os.WriteFile(filepath.Join(top, "a", "file"), []byte("x"), 0o644))
	must(Clone(ctx, filepath.Join(top, "a"), filepath.Join(top, "b")))
	if is, err := IsSubvolume(filepath.Join(top, "b")); !is || err != nil {
		t.Fatalf("a clone of a subvolume: %v, %v", is, err)
	}
	if is, err := IsSubvolume(dir); is || err != nil {
		t.Errorf("a directory elsewhere: %v, %v", is, err)
	}
	must(Create(filepath.Join(top, "b", "inner")))
	must(os.Mkdir(filepath.Join(top, "b", "dir"), 0o755))
	must(Create(filepath.Join(top, "b", "dir", "deeper")))
	shell(t, top, "touch b/dir/deeper/x; btrfs property set b/dir/deeper ro true; btrfs property set b/inner ro true")
	must(Remove(ctx, filepath.Join(top, "b")))
	must(os.Mkdir(filepath.Join(top, "plain"), 0o755))
	must(snapshotOf(filepath.Join(top, "a"), filepath.Join(top, "plain", "snapshot")))
	must(Remove(ctx, filepath.Join(top, "plain")))

	// A plain directory becomes a subvolume, whose files share its blocks.
	shell(t, top, "mkdir -m 751 dir; head -c 50M /dev/urandom > dir/big; sync")
	if cost, err := CloneCost(ctx, filepath.Join(top, "dir")); cost != 0 || err != nil {
		t.Errorf("a clone costs %d, %v", cost, err)
	}
	must(Clone(ctx, filepath.Join(top, "dir"), filepath.Join(top, "clone")))
	shell(t, top, "head -c 9M /dev/urandom > clone/own; sync")
	if own, known := Exclusive(ctx, filepath.Join(top, "clone")); !known || own < 9<<20 || own > 10<<20 {
		t.Errorf("of its own the clone has %d, %v", own, known)
	}
	if _, known := Exclusive(ctx, filepath.Join(top, "dir")); known {
		t.Error("what a directory shares is said to be known")
	}
	if mode := shell(t, top, "stat -c %a clone"); mode != "751\n" {
		t.Errorf("its mode is %s", mode)
	}
	must(Remove(ctx, filepath.Join(top, "clone")), Remove(ctx, filepath.Join(top, "dir")))
	if got := shell(t, top, "btrfs subvolume list . | awk '{print $NF}'; ls"); got != "a\na\n" {
		t.Errorf("left: %q", got)
	}
	if b, err := Choose("", top, filepath.Join(top, "a")); err != nil || b.Name() != "btrfs" {
		t.Errorf("on a subvolume: %v, %v", b, err)
	}
	if b, err := Choose("auto", dir, dir); err != nil || b.Name() != "overlay" {
		t.Errorf("elsewhere: %v, %v", b, err)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

func shell(t *testing.T, dir, command string) string {
	t.Helper()
	cmd := exec.Command("bash", "-c", command)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
	return string(out)
}
