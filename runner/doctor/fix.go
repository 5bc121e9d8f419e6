package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
)

// ours begins each file that a fix writes. A file without it is somebody else's.
const ours = "# Written by nspawn-runner doctor --fix.\n"

// errNotOurs is why a file is left alone.
var errNotOurs = errors.New("there is such a file already, which nspawn-runner did not write")

// readOurs reads a file of a fix, "" if there is none yet.
func readOurs(path string) (string, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err == nil && !strings.HasPrefix(string(text), ours) {
		err = errNotOurs
	}
	return strings.TrimPrefix(string(text), ours), err
}

// writeOurs writes a file of a fix, and the directory that it is in.
func writeOurs(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return renameio.WriteFile(path, []byte(ours+text), 0o644, renameio.WithStaticPermissions(0o644))
}

// sysctlFile is the fix's file of kernel settings, of sysctl.d(5). Files of the
// administrator with a later name override it.
const sysctlFile = "/etc/sysctl.d/60-nspawn-runner-doctor.conf"

// fixSysctls sets kernel settings now and for each boot: all have one value. paths are those
// of the settings in a directory like /proc/sys.
func fixSysctls(file, sysctls string, paths []string, value int) error {
	text, err := readOurs(file)
	if err != nil {
		return err
	}
	lines := slices.Collect(strings.Lines(text))
	for _, path := range paths {
		name := strings.ReplaceAll(strings.TrimPrefix(path, sysctls+"/"), "/", ".")
		lines = slices.DeleteFunc(lines, func(line string) bool { return strings.HasPrefix(line, "-"+name+" = ") })
		lines = append(lines, fmt.Sprintf("-%s = %d\n", name, value)) // "-": also for kernels without it
	}
	slices.Sort(lines)
	if err := writeOurs(file, strings.Join(lines, "")); err != nil {
		return err
	}
	var failed error
	for _, path := range paths {
		failed = errors.Join(failed, os.WriteFile(path, fmt.Appendln(nil, value), 0o644))
	}
	return failed
}
