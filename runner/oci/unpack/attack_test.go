package unpack

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

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
