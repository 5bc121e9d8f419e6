package unpack

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

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
