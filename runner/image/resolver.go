package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
)

// resolvedDir is where systemd-resolved keeps what /etc/resolv.conf leads to once
// its package is installed. /run is the box's own.
const resolvedDir = "run/systemd/resolve"

// lendResolver puts the host's resolv.conf where the package systemd-resolved
// makes the image's lead to. The service that would write it does not run in a box,
// and names would end with the package's installation (seen with bookworm's).
func (x *box) lendResolver() error {
	resolv, err := os.ReadFile("/etc/resolv.conf")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	inside, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", x.root().Fd()))
	if err != nil {
		return err
	}
	defer inside.Close()
	if err := inside.MkdirAll(resolvedDir, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"stub-resolv.conf", "resolv.conf"} {
		if err := writeFile(inside, path.Join(resolvedDir, name), resolv, 0o644); err != nil {
			return fmt.Errorf("lend /%s/%s: %w", resolvedDir, name, err)
		}
	}
	return nil
}

// root is the box's root directory.
func (x *box) root() *os.File {
	for i, entrance := range entrances {
		if entrance.file == "root" {
			return x.handles[i]
		}
	}
	panic("nothing enters the root of a box")
}
