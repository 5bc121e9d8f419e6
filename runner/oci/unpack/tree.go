package unpack

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tree is the tree into which layers are unpacked. It is the root directory of this process, so all paths and links
// lead to files in it.
type tree struct {
	limits Limits
	// stream is how many bytes the decompressed layers had so far.
	stream uint64
	result Result
	removal
	// skipped are paths of devices and fifos, to which other entries may be hard links.
	skipped map[string]struct{}
}

// mostSkipped bounds the number of skipped paths.
const mostSkipped = 10000

func newTree(limits Limits) *tree {
	return &tree{limits: limits, skipped: map[string]struct{}{}}
}

// layer unpacks a layer, and checks the digest of its decompressed form.
func (t *tree) layer(compressed io.Reader, sum [32]byte) error {
	plain, err := decompress(compressed)
	if err != nil {
		return err
	}
	bounded := &boundedReader{from: plain, left: t.limits.Bytes - t.stream}
	hash := sha256.New()
	stream := io.TeeReader(bounded, hash)
	if err := t.apply(stream); err != nil {
		return bounded.orWhy(err)
	}
	// A tar may have data after its end.
	if _, err := io.Copy(io.Discard, stream); err != nil {
		return bounded.orWhy(fmt.Errorf("read a layer: %w", err))
	}
	t.stream = t.limits.Bytes - bounded.left
	if got := [32]byte(hash.Sum(nil)); got != sum {
		return fmt.Errorf("a layer has the digest sha256:%x when it is decompressed, and the image says sha256:%x", got, sum)
	}
	// Data after the end of the compressed stream is ignored.
	_, err = io.Copy(io.Discard, compressed)
	return err
}

// apply writes the entries of a layer.
func (t *tree) apply(layer io.Reader) error {
	t.fresh, t.emptied = map[uint64]struct{}{}, map[uint64]struct{}{}
	entries := tar.NewReader(layer)
	for {
		header, err := entries.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read a layer: %w", err)
		}
		if err := t.count(); err != nil {
			return err
		}
		if err := t.entry(header, entries); err != nil {
			return fmt.Errorf("%.200q: %w", header.Name, err)
		}
	}
}

// count counts one more file, with the one block that also an empty file may take.
func (t *tree) count() error {
	if t.result.Files++; t.result.Files > t.limits.Files {
		return fmt.Errorf("the image has more than %d files", t.limits.Files)
	}
	if t.result.Bytes += blocks(1); t.result.Bytes > t.limits.Bytes {
		return errTooMuch
	}
	return nil
}

// makeAbove makes the directories that an entry needs and that have no entry themselves. One name may need two
// thousand of them, so they count as files.
func (t *tree) makeAbove(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case err == nil && info.IsDir():
		return nil
	case err == nil:
		return unix.ENOTDIR
	case !errors.Is(err, fs.ErrNotExist):
		return cause(err)
	}
	if err := t.makeAbove(path.Dir(dir)); err != nil {
		return err
	}
	if err := t.count(); err != nil {
		return err
	}
	return cause(os.Mkdir(dir, 0o755))
}

// Names with a meaning in layers: "Whiteouts" in image-spec/layer.md.
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
	metadata = ".wh..wh."
)

// entry unpacks one entry of a layer.
func (t *tree) entry(header *tar.Header, content io.Reader) error {
	if header.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := clean(header.Name)
	if err != nil {
		return err
	}
	dir, base := path.Split(name)
	switch {
	case base == opaque:
		return t.empty(dir)
	case strings.HasPrefix(base, metadata):
		return nil
	case strings.HasPrefix(base, whiteout):
		return t.whiteOut(dir, strings.TrimPrefix(base, whiteout))
	}
	if header.Uid < 0 || header.Uid > maxID || header.Gid < 0 || header.Gid > maxID {
		return fmt.Errorf("it belongs to user %d and group %d; machines have ids from 0 to %d", header.Uid, header.Gid, maxID)
	}
	if err := t.makeAbove(path.Clean(dir)); err != nil {
		return err
	}
	directory := header.Typeflag == tar.TypeDir
	var there unix.Stat_t
	if err := unix.Lstat(name, &there); err == nil && !(directory && there.Mode&unix.S_IFMT == unix.S_IFDIR) {
		if name == "/" {
			return errors.New("the root of the tree is not a directory")
		}
		if err := t.remove(name, false); err != nil {
			return err
		}
	}
	return t.write(name, header, content)
}

// write writes an entry. Nothing has its name, unless both are directories.
func (t *tree) write(name string, header *tar.Header, content io.Reader) error {
	switch header.Typeflag {
	case tar.TypeDir:
		if err := os.Mkdir(name, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return cause(err)
		}
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		if err := t.file(name, header.Size, content); err != nil {
			return err
		}
	case tar.TypeSymlink:
		if err := os.Symlink(header.Linkname, name); err != nil {
			return cause(err)
		}
	case tar.TypeLink:
		return t.link(name, header.Linkname)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		// Machines have devices of their own. A program of the host that reads a file of the tree
		// would wait at a fifo.
		if len(t.skipped) < mostSkipped {
			t.skipped[name] = struct{}{}
		}
		return nil
	default:
		return fmt.Errorf("it is of the unknown type %q", header.Typeflag)
	}
	if err := t.remember(name); err != nil {
		return err
	}
	return setMetadata(name, header)
}

// file writes a regular file.
func (t *tree) file(name string, size int64, content io.Reader) error {
	// A sparse file may be larger than its layer.
	if t.result.Bytes > t.limits.Bytes || uint64(size) > t.limits.Bytes-t.result.Bytes {
		return errTooMuch
	}
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return cause(err)
	}
	n, err := io.Copy(file, content)
	t.result.Bytes += blocks(uint64(n)) - blocks(1) // which is counted
	return cause(errors.Join(err, file.Close()))
}

// link makes a hard link to a file of this layer or one below it.
func (t *tree) link(name, to string) error {
	target, err := clean(to)
	if err != nil {
		return err
	}
	err = unix.Linkat(unix.AT_FDCWD, target, unix.AT_FDCWD, name, 0)
	if _, is := t.skipped[target]; is && err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return fmt.Errorf("link to %.200q: %w", to, err)
	}
	return t.remember(name)
}

// remember notes that this layer has made a file.
func (t *tree) remember(name string) error {
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		return err
	}
	t.fresh[st.Ino] = struct{}{}
	return nil
}

// clean returns the path of an entry in the tree.
func clean(name string) (string, error) {
	if len(name) > unix.PathMax {
		return "", fmt.Errorf("the name has %d bytes", len(name))
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", errors.New("the name has .. in it")
		}
	}
	return path.Clean("/" + name), nil
}

// setMetadata sets the owner, the attributes, the mode and the time of a file, in this order: a change of the owner
// clears setuid bits and capabilities.
func setMetadata(name string, header *tar.Header) error {
	if err := unix.Fchownat(unix.AT_FDCWD, name, header.Uid, header.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if header.Typeflag != tar.TypeSymlink {
		if err := setAttributes(name, header.PAXRecords); err != nil {
			return err
		}
		if err := unix.Chmod(name, uint32(header.Mode&0o7777)); err != nil {
			return err
		}
	}
	at := unix.NsecToTimespec(clamp(header.ModTime).UnixNano())
	return unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW)
}

// alwaysFits is how many bytes of extended attributes one file may have on each file system. ext4 has one block for
// them. If they do not fit, the error is that of a full disk.
const alwaysFits = 2 << 10

// setAttributes sets the extended attributes of a file, if the file system supports them.
func setAttributes(name string, records map[string]string) error {
	size := 0
	for key, value := range records {
		attribute, is := strings.CutPrefix(key, "SCHILY.xattr.")
		if !is || !kept(attribute) {
			continue
		}
		size += len(attribute) + len(value)
		err := unix.Lsetxattr(name, attribute, []byte(value), 0)
		switch {
		case err == unix.ENOSPC && size > alwaysFits:
			return fmt.Errorf("the file system of this host cannot keep %d bytes of extended attributes for one file", size)
		case err != nil && err != unix.EOPNOTSUPP:
			return fmt.Errorf("attribute %.100q: %w", attribute, err)
		}
	}
	return nil
}

// kept says whether a file keeps an extended attribute: capabilities of programs, and attributes of users. Others
// have a meaning for the host's kernel, such as those with which an overlay marks its files.
func kept(attribute string) bool {
	return attribute == "security.capability" ||
		strings.HasPrefix(attribute, "user.") && !strings.HasPrefix(attribute, "user.overlay.")
}

// clamp returns a time that each file system supports.
func clamp(t time.Time) time.Time {
	if t.Unix() < 0 || t.Unix() > 1<<32 {
		return time.Unix(0, 0)
	}
	return t
}

// cause returns an error without its path, which the caller adds.
func cause(err error) error {
	var at *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &at):
		return at.Err
	case errors.As(err, &link):
		return link.Err
	}
	return err
}
