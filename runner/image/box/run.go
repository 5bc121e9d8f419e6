package box

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
)

// A box has a /run of its own, which is empty, where a boot fills it. Programs that
// tasks call count on what is there: apache2ctl on /run/lock, sshd -t on /run/sshd.

// FillRun makes in the box's /run what a boot makes there, but for systemd's own part,
// which says that systemd runs, and what the package systemd-resolved counts on.
func (x *Box) FillRun(ctx context.Context, environment map[string]string) error {
	args := append(x.Enter(), "systemd-tmpfiles", "--create", "--prefix=/run", "--exclude-prefix=/run/systemd")
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	for name, value := range Environment(environment) {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	_ = cmd.Run() // lines about users that are not there fail, and a tree may lack it
	inside, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", x.handles["--root"].Fd()))
	if err != nil {
		return err
	}
	defer inside.Close()
	// sshd's unit makes it at its start, and roles check what they configure.
	if err := inside.MkdirAll("run/sshd", 0o755); err != nil {
		return err
	}
	return lendResolver(inside)
}

// resolvedDir is where systemd-resolved keeps what /etc/resolv.conf leads to once
// its package is installed.
const resolvedDir = "run/systemd/resolve"

// lendResolver puts the host's resolv.conf where the package systemd-resolved
// makes the image's lead to. The service that would write it does not run in a box,
// and names would end with the package's installation (seen with bookworm's).
func lendResolver(inside *os.Root) error {
	resolv, err := os.ReadFile("/etc/resolv.conf")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := inside.MkdirAll(resolvedDir, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"stub-resolv.conf", "resolv.conf"} {
		if err := WriteFile(inside, path.Join(resolvedDir, name), resolv, 0o644); err != nil {
			return fmt.Errorf("lend /%s/%s: %w", resolvedDir, name, err)
		}
	}
	return nil
}
