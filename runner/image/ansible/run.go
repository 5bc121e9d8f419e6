// Package ansible reads playbooks, and runs them on a tree that is being built.
//
// What nspawn-runner itself reads in a playbook are an image's settings, and whether a
// file is a playbook at all (playbook.go, kind.go). A run (run.go) is ansible-playbook's,
// with plugins of ours for the way into the tree. Where a failure says too little to its
// reader, a hint is added (hint.go). The callback counts what was changed (tally.go).
package ansible

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/image/box"
	"nspawn-runner/runner/image/build"
)

// plugins are ours for ansible: the connection into the box, the way to another user
// in there, and a callback that says which task failed and how many changed something.
// With them ansible-core is enough.
//
//go:embed connection/chroot.py podman/podman.py become/nspawn_runner.py callback/nspawn_runner.py
var plugins embed.FS

// bootedConnection is what the connection is called in a booted build: playbooks take the
// name chroot for a reason to start no services.
const bootedConnection = "machine"

// Run runs ansible-playbook on this host, with what is behind a door as its only host:
// a machine that was booted, or a box. The playbook stays where it is, with the roles,
// collections and variables beside it, and the user's ansible.cfg counts; only inventory
// and connection are ours.
func (b Playbook) Run(ctx context.Context, making *build.Build, door *box.Door, booted bool) (Tally, error) {
	r := run{making, booted}
	dir, err := os.MkdirTemp("", "nspawn-runner-ansible-")
	if err != nil {
		return Tally{}, err
	}
	defer os.RemoveAll(dir)
	if err := os.CopyFS(dir, plugins); err != nil {
		return Tally{}, err
	}
	if err := os.Chmod(filepath.Join(dir, "podman", "podman.py"), 0o700); err != nil {
		return Tally{}, err
	}
	if booted {
		connections := filepath.Join(dir, "connection")
		if err := os.Rename(filepath.Join(connections, "chroot.py"), filepath.Join(connections, bootedConnection+".py")); err != nil {
			return Tally{}, err
		}
	}
	inventory := filepath.Join(dir, "inventory.yaml")
	if err := r.writeInventory(inventory, door); err != nil {
		return Tally{}, err
	}
	playbook, err := filepath.Abs(b.Path)
	if err != nil {
		return Tally{}, err
	}
	failures, tally := filepath.Join(dir, "failures"), filepath.Join(dir, "tally")

	cmd := exec.CommandContext(ctx, "ansible-playbook", "--inventory", inventory, playbook)
	cmd.Dir = filepath.Dir(playbook)
	cmd.Env = append(r.HostEnvironment(),
		"ANSIBLE_INVENTORY_ENABLED=yaml",
		"ANSIBLE_CONNECTION_PLUGINS="+pluginPath(dir, "connection"),
		"ANSIBLE_BECOME_PLUGINS="+pluginPath(dir, "become"),
		"ANSIBLE_CALLBACK_PLUGINS="+pluginPath(dir, "callback"),
		"ANSIBLE_LOCAL_TEMP="+filepath.Join(dir, "tmp"),
		"ANSIBLE_NOCOWS=1",
		"NSPAWN_RUNNER_FAILURES="+failures,
		"NSPAWN_RUNNER_TALLY="+tally)
	if r.Colours {
		cmd.Env = append(cmd.Env, "ANSIBLE_FORCE_COLOR=1")
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// Newer ansibles give each of their workers a session of its own, and
	// only ansible knows them all.
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGTERM) }

	err = box.WithoutSync(func() error { return r.Run(ctx, cmd) })
	if err == nil {
		return readTally(tally), nil
	}
	if failure, noted := lastFailure(failures); noted {
		return Tally{}, r.explained(ctx, errors.New(failure.String()), strings.Join(append(failure.Lines, failure.Output), "\n"))
	}
	return Tally{}, r.explained(ctx, fmt.Errorf("ansible-playbook: %w", err), err.Error())
}

// writeInventory writes the inventory: one host, which is called by the path of
// the tree, as with the Python original.
func (r run) writeInventory(path string, door *box.Door) error {
	host := map[string]any{
		"ansible_connection":         "chroot",
		"ansible_user":               "root",
		"ansible_pipelining":         true,
		"ansible_become_method":      "nspawn_runner",
		"ansible_chroot_enter":       door.Enter(),
		"ansible_chroot_environment": box.Environment(r.Environment),
		"ansible_chroot_owner":       door.Owner,
		"ansible_chroot_group":       door.Group,
		// For rsync of the module synchronize: our name is a path, which would be local.
		"ansible_host":              "image",
		"ansible_podman_executable": filepath.Join(filepath.Dir(path), "podman", "podman.py"),
	}
	if r.booted {
		host["ansible_connection"] = bootedConnection
	} else {
		host["ansible_chroot_environment"].(map[string]string)[box.Offline] = "1"
	}
	// JSON is YAML, and quotes everything.
	text, err := json.Marshal(map[string]any{"all": map[string]any{"hosts": map[string]any{r.Root: host}}})
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

// pluginPath is where ansible looks for plugins of a kind: ours first, then
// where it would look without us.
func pluginPath(dir, kind string) string {
	others := os.Getenv("ANSIBLE_" + strings.ToUpper(kind) + "_PLUGINS")
	if others == "" {
		others = "~/.ansible/plugins/" + kind + ":/usr/share/ansible/plugins/" + kind
	}
	return filepath.Join(dir, kind) + ":" + others
}

// taskFailure is what the callback notes of a task that failed.
type taskFailure struct {
	Task   string
	Lines  []string
	Output string // the end of what the task's program printed besides
}

// String has the first line of the message and the last ones, which matter. What a program
// printed may be in its message already.
func (f taskFailure) String() string {
	var lines []string
	for _, line := range f.Lines {
		if !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	if len(lines) > 4 {
		lines = append([]string{lines[0], "..."}, lines[len(lines)-3:]...)
	}
	return fmt.Sprintf("task %q: %s", f.Task, strings.Join(lines, "; "))
}

// lastFailure is what the callback noted last, if a task failed.
func lastFailure(path string) (last taskFailure, noted bool) {
	text, err := os.ReadFile(path)
	if err != nil {
		return last, false
	}
	notes := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return last, json.Unmarshal(notes[len(notes)-1], &last) == nil
}
