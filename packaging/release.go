package packaging

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

// Release makes a commit that is a release, with its tag: the version of the program, the
// CHANGELOG and debian/changelog say the same. A second commit opens the next release. dir
// is a clone without changes.
func Release(ctx context.Context, dir, version string, now time.Time) error {
	if err := release(ctx, clone(dir), version, now.UTC()); err != nil {
		return fmt.Errorf("release %s: %w", version, err)
	}
	return nil
}

func release(ctx context.Context, c clone, version string, now time.Time) error {
	parts := regexp.MustCompile(`^(\d+\.\d+\.)(\d+)$`).FindStringSubmatch(version)
	if parts == nil {
		return errors.New("want a version like 1.2.3")
	}
	changes, err := c.git(ctx, "status", "--porcelain")
	if err != nil {
		return err
	}
	if changes != "" {
		return errors.New("commit your changes first: " + changes)
	}
	tag := "v" + version
	known, err := c.git(ctx, "tag", "--list", tag)
	if err != nil {
		return err
	}
	if known != "" {
		return fmt.Errorf("there is a tag %s", tag)
	}
	err = errors.Join(
		c.replace("runner/version.go", versionLine, `const Version = "`+version+`"`),
		c.replace("CHANGELOG.md", regexp.MustCompile(`(?m)^## \S+, not released yet$`), "## "+version+", "+now.Format(time.DateOnly)),
		c.replace("debian/changelog", regexp.MustCompile(`^nspawn-runner \(\S+\) `+unreleased), "nspawn-runner ("+version+") unstable"),
		c.replace("debian/changelog", trailer, "${1}"+now.Format(time.RFC1123Z)),
	)
	if err != nil {
		_, undone := c.git(ctx, "checkout", "--", ".")
		return errors.Join(err, undone)
	}
	if err := c.commit(ctx, "Release "+version); err != nil {
		return err
	}
	if _, err := c.git(ctx, "tag", "--annotate", "--message=nspawn-runner "+version, tag); err != nil {
		return err
	}
	patch, _ := strconv.Atoi(parts[2])
	next := parts[1] + strconv.Itoa(patch+1)
	text, err := c.read("debian/changelog")
	if err != nil {
		return err
	}
	maintainer := trailer.FindStringSubmatch(text)[1]
	opened := "nspawn-runner (" + next + ") " + unreleased + "; urgency=medium\n\n  * CHANGELOG.md says what is new.\n\n" +
		maintainer + now.Format(time.RFC1123Z) + "\n\n"
	if err := errors.Join(
		c.replace("runner/version.go", versionLine, `const Version = "`+next+`"`),
		c.replace("CHANGELOG.md", regexp.MustCompile(`(?m)^## `+regexp.QuoteMeta(version)), "## "+next+", not released yet\n\n$0"),
		c.replace("debian/changelog", regexp.MustCompile(`^`), opened),
	); err != nil {
		return err
	}
	return c.commit(ctx, "After "+version)
}

// versionLine is where the program has its version.
var versionLine = regexp.MustCompile(`(?m)^const Version = ".*"$`)

// clone is the directory of a clone.
type clone string

func (c clone) git(ctx context.Context, args ...string) (string, error) {
	return git(ctx, append([]string{"-C", string(c)}, args...)...)
}

func (c clone) commit(ctx context.Context, message string) error {
	_, err := c.git(ctx, "commit", "--quiet", "--all", "--message="+message)
	return err
}

func (c clone) read(name string) (string, error) {
	text, err := os.ReadFile(filepath.Join(string(c), name))
	return string(text), err
}

// replace replaces the first match in a file, which must be there.
func (c clone) replace(name string, old *regexp.Regexp, with string) error {
	text, err := c.read(name)
	if err != nil {
		return err
	}
	at := old.FindStringSubmatchIndex(text)
	if at == nil {
		return fmt.Errorf("%s: nothing is like %s", name, old)
	}
	changed := text[:at[0]] + string(old.ExpandString(nil, with, text, at)) + text[at[1]:]
	return os.WriteFile(filepath.Join(string(c), name), []byte(changed), 0o644)
}
