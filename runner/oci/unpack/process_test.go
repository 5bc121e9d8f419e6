package unpack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain makes the test binary the process that unpacks.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == Command {
		if err := Run(os.Args[2:], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestTheProcessThatUnpacksSeesNothingOfTheHost(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("unpacking needs root: the tree has files of many users")
	}
	tree, held := t.TempDir(), os.Stdin
	self, _ := os.Executable()
	p, err := Start(t.Context(), self, tree, enough, held)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	one := layer(t, file("a", ""))
	if err := p.Layer(bytes.NewReader(one), int64(len(one)), sha256.Sum256(one)); err != nil {
		t.Fatal(err)
	}
	in := fmt.Sprintf("/proc/%d/", p.cmd.Process.Pid)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(tree, "a")); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not begin")
		}
	}
	mounts, err := os.ReadFile(in + "mountinfo")
	if err != nil || strings.Count(string(mounts), "\n") != 1 || !strings.Contains(string(mounts), "nosuid,nodev,noexec") {
		t.Errorf("its mounts: %s, %v", mounts, err)
	}
	status, _ := os.ReadFile(in + "status")
	for _, line := range []string{"NoNewPrivs:\t1", "Seccomp:\t2", fmt.Sprintf("CapEff:\t%016x", uint64(needed)), fmt.Sprintf("CapPrm:\t%016x", uint64(needed))} {
		if !strings.Contains(string(status), line) {
			t.Errorf("no %q in its status: %s", line, status)
		}
	}
	limits, _ := os.ReadFile(in + "limits")
	if !regexp.MustCompile(`Max cpu time +616 +626`).Match(limits) {
		t.Errorf("no limit of its time: %s", limits)
	}
	for _, namespace := range []string{"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"} {
		its, err := os.Readlink(in + "ns/" + namespace)
		ours, _ := os.Readlink("/proc/self/ns/" + namespace)
		if err != nil || its == ours {
			t.Errorf("namespace %s: %q, %v", namespace, its, err)
		}
	}
	if err := p.cmd.Process.Signal(unix.SIGXCPU); err != nil {
		t.Fatal(err)
	}
	if err := unix.Waitid(unix.P_PID, p.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Finish(); err == nil || !strings.Contains(err.Error(), "longer to unpack") || errors.As(err, &HostError{}) {
		t.Errorf("when its time is over: %v", err)
	}
}

func TestWhenTheProgramIsGoneTheUnpackingEnds(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("unpacking needs root: the tree has files of many users")
	}
	self, _ := os.Executable()
	p, err := Start(context.Background(), self, t.TempDir(), enough, os.Stdin)
	if err != nil {
		t.Fatal(err)
	}
	p.layers.Close() // as the kernel does for a program that was killed
	if err := p.cmd.Wait(); err == nil || !strings.Contains(string(p.said.last), "EOF") {
		t.Errorf("%v: %s", err, p.said.last)
	}
}

func TestAProcessThatWasTakenOverDoesNotFillOurMemory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("unpacking needs root: the tree has files of many users")
	}
	program := filepath.Join(t.TempDir(), "unpack")
	const script = "#!/bin/sh\nhead -c 50000000 /dev/zero\necho\necho '{\"bytes\":7,\"files\":1}'\n"
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	p, err := Start(t.Context(), program, t.TempDir(), enough, os.Stdin)
	if err != nil {
		t.Fatal(err)
	}
	if result, err := p.Finish(); err != nil || result.Bytes != 7 || cap(p.result.last) > 1<<20 {
		t.Errorf("%+v, %v, and we keep %d bytes", result, err, cap(p.result.last))
	}
}

func TestAProcessThatIsKilledAndADiskThatIsFullAreTheHostsTrouble(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("unpacking needs root: the tree has files of many users")
	}
	small := t.TempDir()
	if err := unix.Mount("small", small, "tmpfs", 0, "size=64k"); err != nil {
		t.Skip("needs to mount: ", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(small, unix.MNT_DETACH) })
	self, _ := os.Executable()
	one := layer(t, file("a", string(make([]byte, 1<<20))))
	for what, test := range map[string]struct {
		tree string
		kill bool
	}{"killed": {t.TempDir(), true}, "full": {small, false}} {
		p, err := Start(t.Context(), self, test.tree, enough, os.Stdin)
		if err != nil {
			t.Fatal(err)
		}
		if test.kill {
			_ = p.cmd.Process.Kill()
		}
		err = p.Layer(bytes.NewReader(one), int64(len(one)), sha256.Sum256(one))
		if err == nil {
			_, err = p.Finish()
		}
		if !errors.As(err, &HostError{}) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestAttributesThatDoNotFitAreTheImagesTrouble(t *testing.T) {
	large := file("a", "")
	large.PAXRecords = map[string]string{"SCHILY.xattr.user.x": strings.Repeat("x", 60000)}
	_, _, err := unpackAll(t, enough, plain(layer(t, large))...)
	if err == nil {
		t.Skip("the file system of the tests keeps large attributes, unlike ext4")
	}
	if errors.As(err, &HostError{}) || !strings.Contains(err.Error(), "extended attributes") {
		t.Error(err)
	}
}
