package packaging

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Source makes the tree of the source package of Debian in a directory, from the files of
// the clone as they are, and the modules that the program is built of. It returns the
// version of the package. It must be called at the top of the module.
//
// Between releases the newest entry of debian/changelog has the distribution UNRELEASED.
// The version of the package is lower than the release's then, and names the commit.
func Source(ctx context.Context, dir string) (version string, err error) {
	if err := copyFiles(ctx, dir); err != nil {
		return "", fmt.Errorf("source package: %w", err)
	}
	if err := vendor(ctx, dir); err != nil {
		return "", fmt.Errorf("source package: %w", err)
	}
	version, date, err := stampChangelog(ctx, dir)
	if err != nil {
		return "", fmt.Errorf("source package: %w", err)
	}
	// All files are as old as the release, or tar would have the time of this build.
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		return os.Chtimes(path, date, date)
	})
	return version, err
}

// copyFiles copies the files of the clone: those that git knows, and new ones that it does
// not ignore. Their modes are git's, not those of the umask.
func copyFiles(ctx context.Context, dir string) error {
	list, err := git(ctx, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	if err != nil {
		return err
	}
	for _, name := range strings.Split(strings.Trim(list, "\x00"), "\x00") {
		info, err := os.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed, and not committed yet
		}
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s: not a file", name)
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if info.Mode()&0o100 != 0 {
			mode = 0o755
		}
		if err := errors.Join(os.WriteFile(to, text, mode), os.Chmod(to, mode)); err != nil {
			return err
		}
	}
	return nil
}

// vendor adds the modules, without those that only the tools of developers are made of:
// they are three times as large.
func vendor(ctx context.Context, dir string) error {
	mod := filepath.Join(dir, "go.mod")
	text, err := os.ReadFile(mod)
	if err != nil {
		return err
	}
	tools := regexp.MustCompile(`(?ms)^tool \(.*?^\)\n`)
	if err := os.WriteFile(mod, tools.ReplaceAll(text, nil), 0o644); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "mod", "vendor")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go mod vendor: %w: %s", err, out)
	}
	return os.WriteFile(mod, text, 0o644)
}

// entry is the first line of an entry of debian/changelog: deb-changelog(5).
var entry = regexp.MustCompile(`^nspawn-runner \(([^()]+)\) (\S+); urgency=\S+\n`)

// trailer is its last line.
var trailer = regexp.MustCompile(`(?m)^( -- .*>  )(.*)$`)

// stampChangelog gives an unreleased entry of a tree's debian/changelog the version and the
// time of the commit. It returns those of the entry.
func stampChangelog(ctx context.Context, dir string) (version string, date time.Time, err error) {
	path := filepath.Join(dir, "debian/changelog")
	text, err := os.ReadFile(path)
	if err != nil {
		return "", date, err
	}
	head, last := entry.FindSubmatch(text), trailer.FindSubmatch(text)
	if head == nil || last == nil {
		return "", date, errors.New("debian/changelog: it does not begin with an entry of nspawn-runner")
	}
	version = string(head[1])
	if string(head[2]) != unreleased {
		if tag, err := git(ctx, "describe", "--exact-match", "--match=v"+version); err != nil || tag != "v"+version {
			return "", date, fmt.Errorf("debian/changelog: %s is released, and this is not its commit: no tag v%[1]s", version)
		}
		date, err = time.Parse(time.RFC1123Z, string(last[2]))
		return version, date, err
	}
	commit, err := git(ctx, "log", "-1", "--format=%ct %h", "--abbrev=8")
	if err != nil {
		return "", date, err
	}
	var seconds int64
	var short string
	if _, err := fmt.Sscan(commit, &seconds, &short); err != nil {
		return "", date, fmt.Errorf("git log: %q: %w", commit, err)
	}
	date = time.Unix(seconds, 0).UTC()
	version += "~" + date.Format("20060102.150405") + "." + short
	stamped := strings.Replace(string(text), "("+string(head[1])+")", "("+version+")", 1)
	stamped = strings.Replace(stamped, string(last[0]), string(last[1])+date.Format(time.RFC1123Z), 1)
	return version, date, os.WriteFile(path, []byte(stamped), 0o644)
}

// unreleased is the distribution of an entry that is not released.
const unreleased = "UNRELEASED"

// git asks git about the clone. The clone may be another user's, as in a container: git
// would refuse to read it.
func git(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-c", "safe.directory=*"}, args...)...)
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(string(exit.Stderr)))
	}
	return strings.TrimSpace(string(out)), err
}
