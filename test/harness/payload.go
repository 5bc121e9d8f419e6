package harness

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"al.essio.dev/pkg/shellescape"
)

// payloadScript is the path in a VM of what its service runs.
const payloadScript = "/harness"

// writePayload makes the file that a VM gets as its payload disk: a plain tar
// of files, by their paths in the VM, and of the script that runs the command.
func writePayload(path string, o VMOptions) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("payload: %w", err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = fmt.Errorf("payload: %w", err)
		}
	}()
	archive := tar.NewWriter(f)
	for inner, outer := range o.Files {
		if err := addTree(archive, inner, outer); err != nil {
			return err
		}
	}
	script := o.script()
	header := &tar.Header{Name: member(payloadScript), Mode: 0o755, Size: int64(len(script))}
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	if _, err := io.WriteString(archive, script); err != nil {
		return err
	}
	return archive.Close()
}

// member is the name in the archive of a path in the VM.
func member(path string) string { return strings.TrimPrefix(filepath.Clean(path), "/") }

// addTree adds a file, or a directory with all below it.
func addTree(archive *tar.Writer, inner, outer string) error {
	return filepath.WalkDir(outer, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		// What is named may be a link to what is meant; below, links are kept.
		stat := os.Lstat
		if path == outer {
			stat = os.Stat
		}
		info, err := stat(path)
		if err != nil {
			return err
		}
		var target string
		if info.Mode()&fs.ModeSymlink != 0 {
			if target, err = os.Readlink(path); err != nil {
				return err
			}
		}
		header, err := tar.FileInfoHeader(info, target)
		if err != nil {
			return fmt.Errorf("on %s: %w", path, err)
		}
		header.Name = member(filepath.Join(inner, strings.TrimPrefix(path, outer)))
		if err := archive.WriteHeader(header); err != nil || !info.Mode().IsRegular() {
			return err
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		_, err = io.Copy(archive, file)
		return err
	})
}

// script is what the VM's service runs. A port of a VM has room for one
// opener, so the script opens each once and leaves it to what it runs.
func (o VMOptions) script() string {
	var s strings.Builder
	s.WriteString("exec </dev/null >/dev/virtio-ports/out 2>&1\n")
	s.WriteString("command() {\n")
	for _, d := range o.Disks {
		if d.Mount != "" {
			device := "/dev/disk/by-id/virtio-" + d.Label
			how := "rw"
			if d.ReadOnly {
				how = "ro"
			}
			fmt.Fprintf(&s, "udevadm wait --timeout=60 %[1]s && mkdir -p %[2]s && mount -o %[3]s %[1]s %[2]s || return 125\n",
				shellescape.Quote(device), shellescape.Quote(d.Mount), how)
		}
	}
	for _, word := range o.Command {
		s.WriteString(shellescape.Quote(word) + " ")
	}
	s.WriteString("\n}\ncommand\n")
	s.WriteString("echo $? >/dev/virtio-ports/status\n")
	if o.Journal != "" {
		s.WriteString("journalctl --sync\n")
		s.WriteString("tar -C / -c --ignore-failed-read var/log/journal run/log/journal 2>/dev/null | cat >/dev/virtio-ports/journal\n")
	}
	if o.Reboot {
		s.WriteString("systemctl reboot\n")
	} else {
		s.WriteString("systemctl poweroff --force\n")
	}
	return s.String()
}
