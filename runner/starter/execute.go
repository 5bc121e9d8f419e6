package starter

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Exit codes are those of docker-run(1).
const (
	// unable is the code if the image does not fit the plan.
	unable = 125
	// notExecutable is the code if the program cannot be executed.
	notExecutable = 126
	// notFound is the code if the program does not exist.
	notFound = 127
)

// failure is the error if a program could not be started. It has an exit code.
type failure struct {
	code int
	error
}

// execute becomes a program. It returns only if it fails.
func execute(command, environment []string) error {
	file, err := lookUp(command[0], pathIn(environment))
	if err != nil {
		return err
	}
	err = unix.Exec(file, command, environment)
	switch {
	case errors.Is(err, unix.ENOENT): // the file itself exists
		return failure{notFound, fmt.Errorf("%s: the image lacks the interpreter in its first line, or its dynamic loader", file)}
	case errors.Is(err, unix.ENOEXEC):
		return failure{notExecutable, fmt.Errorf("%s: %w: it is for another architecture, or a script that names no interpreter", file, err)}
	}
	return failure{notExecutable, fmt.Errorf("execute %s: %w", file, err)}
}

// pathIn returns the value of PATH.
func pathIn(environment []string) string {
	for _, pair := range environment {
		if value, is := strings.CutPrefix(pair, "PATH="); is {
			return value
		}
	}
	return ""
}

// lookUp finds the file of a program as execvp(3) does.
func lookUp(name, path string) (string, error) {
	if strings.Contains(name, "/") {
		if err := executable(name); err != nil {
			return "", notStarted(name, err)
		}
		return name, nil
	}
	why := error(fs.ErrNotExist)
	for _, dir := range filepath.SplitList(path) {
		file := cmp.Or(dir, ".") + "/" + name
		err := executable(file)
		if err == nil {
			return file, nil
		}
		if errors.Is(err, fs.ErrPermission) {
			why = err
		}
	}
	if errors.Is(why, fs.ErrNotExist) {
		return "", failure{notFound, fmt.Errorf("%q is not in the PATH of the image (%s)", name, path)}
	}
	return "", notStarted(name, why)
}

// executable returns an error if the user of this process cannot execute a file.
func executable(file string) error {
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return fmt.Errorf("it is a directory: %w", fs.ErrPermission)
	}
	return unix.Faccessat(unix.AT_FDCWD, file, unix.X_OK, unix.AT_EACCESS)
}

func notStarted(name string, err error) error {
	code := notExecutable
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		code = notFound
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return failure{code, fmt.Errorf("%q: %w", name, err)}
}
