package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
)

// CallerDir is the directory that gitlab-runner makes for a job: TMPDIR of its stages. It has the job's
// response with its token, and its scripts. gitlab-runner removes it after cleanup, unless it is killed.
type CallerDir struct {
	Path   string `json:"path"`
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
}

// callerDirName matches its name: executors/custom/custom.go of gitlab-runner.
var callerDirName = regexp.MustCompile(`^custom-executor[0-9]+$`)

// FindCallerDir returns the directory of a job's response. It returns nil if another user could have made
// the directory, or its name is not one of gitlab-runner's.
func FindCallerDir(responseFile string) *CallerDir {
	path := filepath.Dir(responseFile)
	info, err := os.Lstat(path)
	if err != nil || !filepath.IsAbs(path) || !callerDirName.MatchString(filepath.Base(path)) {
		return nil
	}
	response, err := os.Lstat(responseFile)
	if err != nil || !isPrivate(info, os.ModeDir|0o700) || !isPrivate(response, 0o600) {
		return nil
	}
	stat := info.Sys().(*syscall.Stat_t)
	return &CallerDir{path, stat.Dev, stat.Ino}
}

// isPrivate says whether a file belongs to root and has exactly a kind and a mode. A link does not.
func isPrivate(info os.FileInfo, mode os.FileMode) bool {
	return info.Mode() == mode && info.Sys().(*syscall.Stat_t).Uid == 0
}

// remove removes the directory if it is still the same one.
func (d *CallerDir) remove() error {
	info, err := os.Lstat(d.Path)
	if err != nil || !isPrivate(info, os.ModeDir|0o700) {
		return nil
	}
	if stat := info.Sys().(*syscall.Stat_t); stat.Dev != d.Device || stat.Ino != d.Inode {
		return nil
	}
	above, err := os.OpenRoot(filepath.Dir(d.Path))
	if err == nil {
		err = errors.Join(above.RemoveAll(filepath.Base(d.Path)), above.Close())
	}
	if err != nil {
		return fmt.Errorf("remove what a dead gitlab-runner left: %w", err)
	}
	return nil
}
