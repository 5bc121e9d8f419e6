package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
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

// entry is a file of a layer.
type entry struct {
	tar.Header
	content string
}

func file(name, content string) entry {
	return entry{tar.Header{Name: name, Mode: 0o644, Typeflag: tar.TypeReg}, content}
}

func dir(name string) entry {
	return entry{tar.Header{Name: name, Mode: 0o755, Typeflag: tar.TypeDir}, ""}
}

func link(name, to string, kind byte) entry {
	return entry{tar.Header{Name: name, Linkname: to, Mode: 0o777, Typeflag: kind}, ""}
}

// layer is a layer as a tar.
func layer(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		e.Size, e.Format = int64(len(e.content)), tar.FormatPAX
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zip(plain []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(plain)
	_ = w.Close()
	return out.Bytes()
}

func zstandard(plain []byte) []byte {
	var out bytes.Buffer
	w, _ := zstd.NewWriter(&out)
	_, _ = w.Write(plain)
	_ = w.Close()
	return out.Bytes()
}

var enough = Limits{Bytes: 64 << 20, Files: 1000}

// unpack unpacks layers, each with what it is when it is decompressed, into a new tree.
func unpackAll(t *testing.T, limits Limits, layers ...[2][]byte) (tree string, result Result, err error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("unpacking needs root: the tree has files of many users")
	}
	tree = filepath.Join(t.TempDir(), "tree")
	if err := os.Mkdir(tree, 0o700); err != nil {
		t.Fatal(err)
	}
	held, err := os.Create(filepath.Join(t.TempDir(), "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, err := Start(t.Context(), self, tree, limits, held)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	for _, l := range layers {
		if err := p.Layer(bytes.NewReader(l[1]), int64(len(l[1])), sha256.Sum256(l[0])); err != nil {
			return tree, Result{}, err
		}
	}
	result, err = p.Finish()
	return tree, result, err
}

// plain are layers that are not compressed.
func plain(layers ...[]byte) (all [][2][]byte) {
	for _, l := range layers {
		all = append(all, [2][]byte{l, l})
	}
	return all
}

// list is what a tree has, but for the furniture: "NAME content", "NAME/", "NAME -> TARGET".
func list(t *testing.T, tree string) string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(tree, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(tree, path)
		switch {
		case name == ".":
		case e.IsDir():
			for _, f := range furniture {
				if f.path == "/"+name {
					if entries, err := os.ReadDir(path); err == nil && len(entries) == 0 {
						return nil
					}
				}
			}
			all = append(all, name+"/")
		case e.Type() == fs.ModeSymlink:
			to, _ := os.Readlink(path)
			all = append(all, name+" -> "+to)
		default:
			text, _ := os.ReadFile(path)
			all = append(all, name+" "+string(text))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, "\n")
}

func TestLayersAreUnpackedOneAboveTheOther(t *testing.T) {
	below := layer(t, dir("./"), dir("etc"), file("etc/a", "1"), file("etc/b", "1"), dir("opt/"), file("opt/x", "1"), dir("opt/sub"), file("opt/sub/y", "1"),
		file("gone", "1"), dir("gonedir"), file("gonedir/z", "1"), link("run", "var/run", tar.TypeSymlink), dir("var"), dir("var/run"), file("hard", "1"), file("todir", "1"), dir("tofile"), file("tofile/q", ""))
	above := layer(t, file("etc/a", "2"), file(".wh.gone", ""), file(".wh.gonedir", ""), file(".wh.never", ""), dir("opt"), file("opt/new", "2"), file("opt/.wh..wh..opq", ""), dir("opt/sub"), file("opt/sub/new", "2"),
		file("run/pid", "2"), link("hard2", "hard", tar.TypeLink), dir("todir"), file("tofile", "2"), file("implicit/deep/file", "2"), file(".wh..wh.plnk", ""))
	for name, layers := range map[string][][2][]byte{
		"plain": plain(below, above),
		"gzip":  {{below, zip(below)}, {above, zip(above)}},
		"zstd":  {{below, zstandard(below)}, {above, zstandard(above)}},
	} {
		tree, result, err := unpackAll(t, enough, layers...)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		const want = "etc/\netc/a 2\netc/b 1\nhard 1\nhard2 1\nimplicit/\nimplicit/deep/\nimplicit/deep/file 2\nopt/\nopt/new 2\nopt/sub/\nopt/sub/new 2\n" +
			"run -> var/run\ntodir/\ntofile 2\nvar/\nvar/run/\nvar/run/pid 2"
		if got := list(t, tree); got != want {
			t.Errorf("%s:\n%s", name, got)
		}
		if result.Files != 35 || result.Bytes == 0 || result.Bytes > 200000 {
			t.Errorf("%s: %+v", name, result)
		}
	}
}

func TestATreeHasWhatAMachineNeeds(t *testing.T) {
	tree, _, err := unpackAll(t, enough, plain(layer(t, file("program", "static")))...)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(tree); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("its root: %v, %v", info, err)
	}
	for _, f := range furniture {
		if info, err := os.Lstat(filepath.Join(tree, f.path)); err != nil || !info.IsDir() || info.Mode().Perm() != fs.FileMode(f.mode&0o777) {
			t.Errorf("%s: %v, %v", f.path, info, err)
		}
	}
	for _, bad := range []entry{file("usr", ""), link("proc", "nowhere", tar.TypeSymlink), link("tmp", "tmp", tar.TypeSymlink)} {
		_, _, err := unpackAll(t, enough, plain(layer(t, bad))...)
		if err == nil || !strings.Contains(err.Error(), "/"+bad.Name) {
			t.Errorf("%s: %v", bad.Name, err)
		}
	}
}

func TestFilesKeepOwnerModeCapabilitiesAndTime(t *testing.T) {
	// cap_net_bind_service+ep, as setcap(8) writes it.
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	ping := file("usr/bin/ping", "x")
	ping.Uid, ping.Gid, ping.Mode, ping.ModTime = 65535, 70, 0o6755, time.Unix(1000000000, 0)
	ping.PAXRecords = map[string]string{
		"SCHILY.xattr.security.capability": capability, "SCHILY.xattr.user.note": "n",
		"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.user.overlay.opaque": "y", "SCHILY.xattr.security.selinux": "s",
	}
	tree, _, err := unpackAll(t, enough, plain(layer(t, ping))...)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(tree, "usr/bin/ping")
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	if st.Uid != 65535 || st.Gid != 70 || st.Mode&0o7777 != 0o6755 || st.Mtim.Sec != 1000000000 {
		t.Errorf("%+v", st)
	}
	got := map[string]string{}
	names := make([]byte, 4096)
	n, err := unix.Llistxattr(path, names)
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		value := make([]byte, 100)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			t.Fatal(name, err)
		}
		got[name] = string(value[:n])
	}
	if _, err := os.Stat(filepath.Join(tree, "usr/bin")); err != nil || got["security.capability"] != capability || len(got) > 2 || len(got) == 2 && got["user.note"] != "n" {
		t.Errorf("%q", got)
	}
}

func TestDevicesAndFifosAreLeftOut(t *testing.T) {
	tree, _, err := unpackAll(t, enough, plain(layer(t, dir("dev"), link("dev/sda", "", tar.TypeBlock), link("dev/zero", "", tar.TypeChar),
		link("dev/log", "", tar.TypeFifo), link("dev/disk", "dev/sda", tar.TypeLink), file("a", "")))...)
	if err != nil || list(t, tree) != "a " {
		t.Errorf("%v: %s", err, list(t, tree))
	}
}

func TestAttacksByTheNamesAndLinksOfAnImageAreHeld(t *testing.T) {
	outside := t.TempDir()
	victim := filepath.Join(outside, "victim")
	if err := os.WriteFile(victim, []byte("safe"), 0o600); err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 30)
	for name, test := range map[string]struct {
		entries []entry
		fails   string // "" if it is only without effect outside
	}{
		"a name with ..":                 {[]entry{file(up+victim, "bad")}, "has .. in it"},
		"a name with .. in the middle":   {[]entry{dir("a"), file("a/../../b", "bad")}, "has .. in it"},
		"an absolute name":               {[]entry{file(victim, "bad")}, ""},
		"a file through a link":          {[]entry{link("out", outside, tar.TypeSymlink), file("out/victim", "bad")}, "file exists"},
		"a file through a link upwards":  {[]entry{link("out", up+outside, tar.TypeSymlink), file("out/victim", "bad")}, "file exists"},
		"a file through a link to /":     {[]entry{link("out", "/", tar.TypeSymlink), file("out"+victim, "bad")}, ""},
		"a hard link to the host":        {[]entry{link("hard", victim, tar.TypeLink)}, "no such file"},
		"a hard link upwards":            {[]entry{link("hard", up+victim, tar.TypeLink)}, "has .. in it"},
		"a hard link through a link":     {[]entry{link("out", "/"+up, tar.TypeSymlink), link("hard", "out"+victim, tar.TypeLink)}, "no such file"},
		"a whiteout through a link":      {[]entry{link("out", outside, tar.TypeSymlink), file("out/.wh.victim", "")}, ""},
		"an opaque mark through a link":  {[]entry{link("out", up+outside, tar.TypeSymlink), file("out/.wh..wh..opq", "")}, ""},
		"a whiteout of the parent":       {[]entry{dir("a"), file("a/.wh...", "")}, "marks no file"},
		"a whiteout of nothing":          {[]entry{file(".wh.", "")}, "marks no file"},
		"a root that is a link":          {[]entry{link("./", outside, tar.TypeSymlink), file("victim", "bad")}, "root of the tree"},
		"links in a circle":              {[]entry{link("a", "b", tar.TypeSymlink), link("b", "a", tar.TypeSymlink), file("a/x", "")}, "too many levels"},
		"a name of 5000 bytes":           {[]entry{dir(strings.Repeat("x/", 2500))}, "has 5000 bytes"},
		"a part of a name of 300 bytes":  {[]entry{file(strings.Repeat("x", 300), "")}, "name too long"},
		"a fifo in place of a directory": {[]entry{link("etc", "", tar.TypeFifo)}, ""},
		"another user's file":            {[]entry{{tar.Header{Name: "f", Typeflag: tar.TypeReg, Uid: 70000}, ""}}, "user 70000"},
		"another group's file":           {[]entry{{tar.Header{Name: "f", Typeflag: tar.TypeReg, Gid: 1 << 31}, ""}}, "group 2147483648"},
		"proc as a link to the host":     {[]entry{link("proc", up+"proc", tar.TypeSymlink), file("proc/sys/kernel/core_pattern", "|bad")}, "too many levels"},
		"names with control characters":  {[]entry{file("a\x1b[31m\nb", ""), file("c\x01/..", "")}, `"c\x01/.."`},
	} {
		t.Run(name, func(t *testing.T) {
			tree, _, err := unpackAll(t, enough, plain(layer(t, test.entries...))...)
			if test.fails == "" && err != nil && !strings.Contains(err.Error(), "file exists") || test.fails != "" && (err == nil || !strings.Contains(err.Error(), test.fails)) {
				t.Errorf("%v", err)
			}
			if err != nil && strings.ContainsAny(err.Error(), "\x1b\n") {
				t.Errorf("%q", err)
			}
			if text, err := os.ReadFile(victim); err != nil || string(text) != "safe" {
				t.Errorf("the victim: %q, %v", text, err)
			}
			if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
				t.Errorf("outside: %v, %v", entries, err)
			}
			_ = filepath.WalkDir(tree, func(path string, e fs.DirEntry, err error) error {
				if err == nil && e.Type()&(fs.ModeDevice|fs.ModeNamedPipe) != 0 {
					t.Errorf("a device or fifo: %s", path)
				}
				return nil
			})
		})
	}
}

// checksumWith gives the first header of a tar another type, and returns its checksum then.
func checksumWith(header []byte, kind byte) (sum int) {
	header[156] = kind
	for i, b := range header[:512] {
		if i >= 148 && i < 156 {
			b = ' '
		}
		sum += int(b)
	}
	return sum
}

func TestAttacksByTheSizeOfAnImageAreHeld(t *testing.T) {
	zeros := layer(t, file("zeros", string(make([]byte, 32<<20))))
	many := make([]entry, 1001)
	for i := range many {
		many[i] = file(fmt.Sprint(i), "")
	}
	var sparse bytes.Buffer // a header that promises a terabyte, in the old format of GNU
	w := tar.NewWriter(&sparse)
	if err := w.WriteHeader(&tar.Header{Name: "sparse", Typeflag: tar.TypeReg, Size: 1 << 40, Format: tar.FormatGNU}); err != nil {
		t.Fatal(err)
	}
	huge := layer(t, file("huge", strings.Repeat("9 a=bcde\n", 1<<18)))
	copy(huge[148:], fmt.Sprintf("%06o", checksumWith(huge, 'x')))
	behind := append(layer(t, file("a", "")), make([]byte, 32<<20)...)
	small := Limits{Bytes: 16 << 20, Files: 1000}
	for name, test := range map[string]struct {
		layers [][2][]byte
		fails  string
	}{
		"a bomb of gzip":                 {[][2][]byte{{zeros, zip(zeros)}}, "oci_image_max"},
		"a bomb of zstd":                 {[][2][]byte{{zeros, zstandard(zeros)}}, "oci_image_max"},
		"a bomb behind the end":          {[][2][]byte{{behind, zip(behind)}}, "oci_image_max"},
		"layers that are large together": {plain(layer(t, file("a", string(make([]byte, 9<<20)))), layer(t, file("a", string(make([]byte, 9<<20))))), "oci_image_max"},
		"more files than may be":         {plain(layer(t, many...)), "more than 1000 files"},
		"more directories than may be":   {plain(layer(t, file(strings.Repeat("a/", 600)+"x", ""), file(strings.Repeat("b/", 600)+"x", ""))), "more than 1000 files"},
		"a file of a terabyte":           {plain(sparse.Bytes()), "oci_image_max"},
		"a header of two megabytes":      {plain(huge), "header field too long"},
		"another digest":                 {[][2][]byte{{zeros, zip(layer(t, file("a", "")))}}, "the image says sha256:"},
		"no tar":                         {plain(bytes.Repeat([]byte("garbage "), 1000)), "read a layer"},
		"broken gzip":                    {[][2][]byte{{sparse.Bytes(), zip(layer(t, file("a", "text")))[:40]}}, "unexpected EOF"},
		"a window of zstd of 2 GiB":      {[][2][]byte{{zeros, {0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x00, 0x00, 0x00}}}, "window"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := unpackAll(t, small, test.layers...)
			if err == nil || !strings.Contains(err.Error(), test.fails) {
				t.Error(err)
			}
		})
	}
}

// What is small in a layer and has no content still takes an inode and a name. An image of it
// must count to what is kept, also what its later layers remove.
func TestWhatHasNoContentCountsToTheSizeOfAnImage(t *testing.T) {
	const many = 200
	links, names := []entry{dir("s")}, []entry{dir("s")}
	for i := range many {
		links = append(links, link(fmt.Sprint("s/", i), strings.Repeat("x", 4000), tar.TypeSymlink))
		names = append(names, file(fmt.Sprint("s/.wh.", i), ""))
	}
	hard := []entry{file("f", "")}
	empty := []entry{}
	for i := range many {
		hard = append(hard, link(fmt.Sprint(strings.Repeat("n", 200), i), "f", tar.TypeLink))
		empty = append(empty, file(fmt.Sprint("e", i), ""))
	}
	large := file("large", strings.Repeat("x", many<<12))
	for name, layers := range map[string][][2][]byte{
		"empty files":                      plain(layer(t, empty...)),
		"directories that no entry is for": plain(layer(t, file(strings.Repeat("d/", many)+"x", ""))),
		"links":                            plain(layer(t, links...)),
		"hard links":                       plain(layer(t, hard...)),
		"links that were removed":          plain(layer(t, append(links, large)...), layer(t, names...)),
	} {
		if _, result, err := unpackAll(t, enough, layers...); err != nil || result.Bytes < many<<12 || result.Bytes > 3*many<<12 {
			t.Errorf("%s: %+v, %v", name, result, err)
		}
	}
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

// A layer may mark one directory as opaque a hundred thousand times, and fill it before.
func TestADirectoryIsEmptiedOnceInALayer(t *testing.T) {
	dir := t.TempDir()
	r := removal{fresh: map[uint64]struct{}{}, emptied: map[uint64]struct{}{}}
	for i := range 2000 {
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			t.Fatal(err)
		}
		r.fresh[st.Ino] = struct{}{}
	}
	times := func(n int) time.Duration {
		began := time.Now()
		for range n {
			if err := errors.Join(r.empty(dir), r.whiteOut(filepath.Dir(dir), filepath.Base(dir))); err != nil {
				t.Fatal(err)
			}
		}
		return time.Since(began)
	}
	once := times(1)
	if many := times(500); many > 100*once {
		t.Errorf("once takes %s, 500 times %s", once, many)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2000 {
		t.Errorf("%d files of this layer are left, %v", len(left), err)
	}
}

func FuzzClean(f *testing.F) {
	for _, name := range []string{"", "/", "a/b", "./a//b/", "../a", "a/..", "...", "a\x00b", "/proc/self/root/etc"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		path, err := clean(name)
		if err == nil && (!strings.HasPrefix(path, "/") || strings.Contains(path+"/", "/../")) {
			t.Errorf("%q: %q", name, path)
		}
	})
}
