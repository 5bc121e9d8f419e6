package image

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
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

// Downloads are kept in the directory .downloads, a file for each address, which
// is called by the address's hash. A file begins with the SHA-256 of the rest,
// so that one that a power cut or a bad disk spoiled is found out, and fetched
// again. Its time of modification is the mirror's, its time of access tells what
// was not used for the longest time.
type downloadCache struct {
	dir string
	max uint64
}

func (s *Store) downloads() downloadCache {
	return downloadCache{dir: filepath.Join(s.StateDir, ".downloads"), max: s.DownloadsMax}
}

// A header is the hash in hex and a newline.
const headerSize = 2*sha256.Size + 1

// keeps says whether what is at a path of a mirror never changes: packages,
// whose names have their versions, and the lists that are called by their hash.
func keeps(mirrorPath string) bool {
	return path.Ext(mirrorPath) == ".deb" || strings.Contains(mirrorPath, "/by-hash/SHA256/")
}

func (c downloadCache) path(address string) string {
	return filepath.Join(c.dir, hex.EncodeToString(hash([]byte(address))))
}

func hash(text []byte) []byte {
	sum := sha256.Sum256(text)
	return sum[:]
}

// open returns what is kept of an address, and when the mirror changed it last,
// or nil. What is spoiled goes away.
func (c downloadCache) open(address string) (*os.File, time.Time) {
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

func (c downloadCache) remove(address string) { _ = os.Remove(c.path(address)) }

// keeper passes a download on, and keeps it when it came to its end. That it
// cannot be kept, as on a full disk, is no reason not to pass it on.
type keeper struct {
	io.ReadCloser
	cache    downloadCache
	address  string
	length   int64 // that the mirror announced
	modified time.Time

	file  *os.File
	taken int64
	sum   interface {
		io.Writer
		Sum([]byte) []byte
	}
}

// keep begins to keep a download.
func (c downloadCache) keep(body io.ReadCloser, address string, length int64, modified time.Time) io.ReadCloser {
	file, err := os.CreateTemp(c.dir, unfinishedDownload)
	if err == nil {
		_, err = file.Seek(headerSize, io.SeekStart)
	}
	if err != nil {
		return body
	}
	return &keeper{ReadCloser: body, cache: c, address: address, length: length, modified: modified, file: file, sum: sha256.New()}
}

// unfinishedDownload begins the names of files that are being written.
const unfinishedDownload = ".new-"

func (k *keeper) Read(p []byte) (int, error) {
	n, err := k.ReadCloser.Read(p)
	if k.file != nil && n > 0 {
		if _, bad := k.file.Write(p[:n]); bad != nil {
			k.drop()
		} else {
			_, _ = k.sum.Write(p[:n])
			k.taken += int64(n)
		}
	}
	if k.file != nil && err == io.EOF && k.taken == k.length {
		k.finish()
	}
	return n, err
}

func (k *keeper) Close() error {
	k.drop()
	return k.ReadCloser.Close()
}

func (k *keeper) drop() {
	if k.file != nil {
		k.file.Close()
		_ = os.Remove(k.file.Name())
		k.file = nil
	}
}

func (k *keeper) finish() {
	defer k.drop() // after the rename there is nothing of that name
	sum := hex.EncodeToString(k.sum.Sum(nil))
	if _, name, is := strings.Cut(k.address, "/by-hash/SHA256/"); is && name != sum {
		return
	}
	if _, err := k.file.WriteAt([]byte(sum+"\n"), 0); err != nil {
		return
	}
	if os.Chtimes(k.file.Name(), time.Now(), k.modified) == nil {
		_ = os.Rename(k.file.Name(), k.cache.path(k.address))
	}
}

// prune removes what is too much.
func (c downloadCache) prune() error {
	excess, err := c.excess()
	for _, path := range excess {
		// Another build may have removed it.
		if removeErr := os.Remove(path); removeErr != nil && !errors.Is(removeErr, unix.ENOENT) {
			err = errors.Join(err, removeErr)
		}
	}
	return err
}

// excess lists what was not used for the longest time, so much of it that the
// rest is within bounds, and what a killed build left.
func (c downloadCache) excess() ([]string, error) {
	entries, err := readDir(c.dir)
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
		path := filepath.Join(c.dir, entry.Name())
		if strings.HasPrefix(entry.Name(), unfinishedDownload) {
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
		if total <= c.max {
			break
		}
		excess = append(excess, d.path)
		total -= d.size
	}
	return excess, nil
}
