package harness

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
)

// Package is a directory with the files of a Debian package of this machine's release, which
// is not installed: for programs that a lab needs, and that need nothing else. It is kept.
func Package(ctx context.Context, out io.Writer, name string) (string, error) {
	return cached(ctx, "package-"+name, "1", func(aside string) error {
		fmt.Fprintf(out, "Downloading %s\n", name)
		const fetch = `cd "$1" && { apt-get download --quiet "$2" || { apt-get update --quiet && apt-get download --quiet "$2"; }; } &&
			dpkg-deb --extract "$2"_*.deb . && rm "$2"_*.deb`
		return quietly(ctx, "sh", "-c", fetch, "sh", filepath.Clean(aside), name)
	})
}
