// Package downloads caches what builds download: packages, and the lists that are
// called by their hash. Both are the same tomorrow.
//
// A build gives its programs an HTTP proxy (proxy.go). What that fetches, it stores in
// the cache (this file) for all builds, also for those that run at the same time.
package downloads

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Cache is a directory with a file for each address, which is called by the address's
// hash. A file begins with the SHA-256 of the rest, so that one that a power cut or a
// bad disk spoiled is found out, and fetched again. Its time of modification is the
// mirror's, its time of access tells which file was not used for the longest time.
type Cache struct {
	Dir string
	Max uint64 // how many bytes it may have; 0 turns it off
}

// A header is the hash in hex and a newline.
const headerSize = 2*sha256.Size + 1

// isCacheable says whether what is at a path of a mirror never changes: packages,
// whose names have their versions, and the lists that are called by their hash.
func isCacheable(mirrorPath string) bool {
	return path.Ext(mirrorPath) == ".deb" || strings.Contains(mirrorPath, "/by-hash/SHA256/")
}

func (c Cache) path(address string) string {
	sum := sha256.Sum256([]byte(address))
	return filepath.Join(c.Dir, hex.EncodeToString(sum[:]))
}

// open returns the cached file of an address, and when the mirror changed it last, or
// nil. It removes a file that is spoiled.
func (c Cache) open(address string) (*os.File, time.Time) {
	file, err := os.Open(c.path(address))
	if err != nil {
		return nil, time.Time{}
	}
	header := make([]byte, headerSize)
	sum := sha256.New()
	info, err := file.Stat()
	if err == nil {
		_, err = io.ReadFull(file, header)
	}
	if err == nil {
		_, err = io.Copy(sum, file)
	}
	if err != nil || string(header) != hex.EncodeToString(sum.Sum(nil))+"\n" {
		file.Close()
		c.remove(address)
		return nil, time.Time{}
	}
	_ = os.Chtimes(file.Name(), time.Now(), info.ModTime())
	return file, info.ModTime()
}

func (c Cache) remove(address string) { _ = os.Remove(c.path(address)) }

// recorder passes a download on, and caches it when it came to its end. A download that
// cannot be cached, as on a full disk, is passed on all the same.
type recorder struct {
	io.ReadCloser
	cache    Cache
	address  string
	length   int64 // that the mirror announced
	modified time.Time

	file  *os.File
	taken int64
	sum   hash.Hash
}

// record returns a body that caches what is read from it.
func (c Cache) record(body io.ReadCloser, address string, length int64, modified time.Time) io.ReadCloser {
	file, err := os.CreateTemp(c.Dir, unfinished)
	if err == nil {
		_, err = file.Seek(headerSize, io.SeekStart)
	}
	if err != nil {
		return body
	}
	return &recorder{ReadCloser: body, cache: c, address: address, length: length, modified: modified, file: file, sum: sha256.New()}
}

// unfinished begins the names of files that are being written.
const unfinished = ".new-"

func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if r.file != nil && n > 0 {
		if _, bad := r.file.Write(p[:n]); bad != nil {
			r.drop()
		} else {
			_, _ = r.sum.Write(p[:n])
			r.taken += int64(n)
		}
	}
	if r.file != nil && err == io.EOF && r.taken == r.length {
		r.finish()
	}
	return n, err
}

func (r *recorder) Close() error {
	r.drop()
	return r.ReadCloser.Close()
}

func (r *recorder) drop() {
	if r.file != nil {
		r.file.Close()
		_ = os.Remove(r.file.Name())
		r.file = nil
	}
}

func (r *recorder) finish() {
	defer r.drop() // after the rename there is nothing of that name
	sum := hex.EncodeToString(r.sum.Sum(nil))
	if _, name, is := strings.Cut(r.address, "/by-hash/SHA256/"); is && name != sum {
		return
	}
	if _, err := r.file.WriteAt([]byte(sum+"\n"), 0); err != nil {
		return
	}
	if os.Chtimes(r.file.Name(), time.Now(), r.modified) == nil {
		_ = os.Rename(r.file.Name(), r.cache.path(r.address))
	}
}

// Prune removes what Excess lists.
func (c Cache) Prune() error {
	excess, err := c.Excess()
	for _, path := range excess {
		// Another build may have removed it.
		if removeErr := os.Remove(path); removeErr != nil && !errors.Is(removeErr, unix.ENOENT) {
			err = errors.Join(err, removeErr)
		}
	}
	return err
}

// Excess lists the paths of what was not used for the longest time, so much of it that
// the rest is within Max, and of what a killed build left.
func (c Cache) Excess() ([]string, error) {
	entries, err := os.ReadDir(c.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	type download struct {
		path string
		size uint64
		used syscall.Timespec
	}
	var excess []string
	var all []download
	var total uint64
	for _, entry := range entries {
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // another build pruned it
		}
		if err != nil {
			return nil, err
		}
		path := filepath.Join(c.Dir, entry.Name())
		if strings.HasPrefix(entry.Name(), unfinished) {
			if time.Since(info.ModTime()) > time.Hour {
				excess = append(excess, path)
			}
			continue
		}
		all = append(all, download{path, uint64(info.Size()), info.Sys().(*syscall.Stat_t).Atim})
		total += uint64(info.Size())
	}
	slices.SortFunc(all, func(a, b download) int { return cmp.Compare(a.used.Nano(), b.used.Nano()) })
	for _, d := range all {
		if total <= c.Max {
			break
		}
		excess = append(excess, d.path)
		total -= d.size
	}
	return excess, nil
}
