package host

import (
	"os"
	"path/filepath"
	"strings"
)

// Lowest is the deepest directory on the way to a path that exists: what a
// directory that is still to be made will lie in.
func Lowest(path string) string {
	for {
		if _, err := os.Stat(path); err == nil || path == "/" {
			return path
		}
		path = filepath.Dir(path)
	}
}

// Resolved is a path without links, as far as it is there; what is not there yet is
// made where the links lead.
func Resolved(path string) string {
	there := Lowest(path)
	end, err := filepath.EvalSymlinks(there)
	if err != nil {
		return path
	}
	return filepath.Join(end, strings.TrimPrefix(path, there))
}
