package image

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
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/image/box"
	"nspawn-runner/runner/image/downloads"
)

// plugins are ours for ansible: the connection into the box, the way to another user
// in there, and a callback that says which task failed and how many changed something.
// With them ansible-core is enough.
//
//go:embed ansible/connection/chroot.py ansible/become/nspawn_runner.py ansible/callback/nspawn_runner.py
var plugins embed.FS

// bootedConnection is what the connection is called in a booted build: playbooks take the
// name chroot for a reason to start no services.
const bootedConnection = "machine"

// play runs the playbook in the generation.
func (b *build) play(ctx context.Context, book Playbook) error {
	if book.Path != "" {
		b.record.Playbook = &PlaybookRecord{Path: book.Path, SHA256: book.SHA256}
	}
	b.record.Maintained = time.Now().UTC().Truncate(time.Second)
	if !book.hasPlays() {
		b.tally.known = true // nothing
		return nil
	}
	return b.step(ctx, "playbook "+book.Path, func() error {
		if b.booted {
			return b.playBooted(ctx, book)
		}
		return b.download(onLoopback, func(p *downloads.Proxy) error { return b.playIn(ctx, book, p) })
	})
}

// playIn runs the playbook in a box on the generation.
func (b *build) playIn(ctx context.Context, book Playbook, p *downloads.Proxy) error {
	return b.inBox(ctx, p, func(x *box.Box) error {
		if err := x.FillRun(ctx, b.store.Environment); err != nil {
			return err
		}
		b.suspect = true
		return b.ansible(ctx, book, x.Door)
	})
}

// ansible runs ansible-playbook on the host, with what is behind a door as its only host. The
// playbook stays where it is, with the roles, collections and variables beside
// it, and the user's ansible.cfg counts; only inventory and connection are ours.
func (b *build) ansible(ctx context.Context, book Playbook, door *box.Door) error {
	dir, err := os.MkdirTemp("", "nspawn-runner-ansible-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.CopyFS(dir, plugins); err != nil {
		return err
	}
	if b.booted {
		connections := filepath.Join(dir, "ansible", "connection")
		if err := os.Rename(filepath.Join(connections, "chroot.py"), filepath.Join(connections, bootedConnection+".py")); err != nil {
			return err
		}
	}
	inventory := filepath.Join(dir, "inventory.yaml")
	if err := b.writeInventory(inventory, door); err != nil {
		return err
	}
	playbook, err := filepath.Abs(book.Path)
	if err != nil {
		return err
	}
	failures, tally := filepath.Join(dir, "failures"), filepath.Join(dir, "tally")

	cmd := exec.CommandContext(ctx, "ansible-playbook", "--inventory", inventory, playbook)
	cmd.Dir = filepath.Dir(playbook)
	cmd.Env = append(b.store.environment(),
		"ANSIBLE_INVENTORY_ENABLED=yaml",
		"ANSIBLE_CONNECTION_PLUGINS="+pluginPath(dir, "connection"),
		"ANSIBLE_BECOME_PLUGINS="+pluginPath(dir, "become"),
		"ANSIBLE_CALLBACK_PLUGINS="+pluginPath(dir, "callback"),
		"ANSIBLE_LOCAL_TEMP="+filepath.Join(dir, "tmp"),
		"ANSIBLE_NOCOWS=1",
		"NSPAWN_RUNNER_FAILURES="+failures,
		"NSPAWN_RUNNER_TALLY="+tally)
	if b.log.hasColours() {
		cmd.Env = append(cmd.Env, "ANSIBLE_FORCE_COLOR=1")
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// Newer ansibles give each of their workers a session of its own, and
	// only ansible knows them all.
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGTERM) }

	err = box.WithoutSync(func() error { return b.run(ctx, cmd) })
	if err == nil {
		b.tally = readTally(tally)
		return nil
	}
	if failure, noted := lastFailure(failures); noted {
		return b.explained(ctx, errors.New(failure.String()), strings.Join(append(failure.Lines, failure.Output), "\n"))
	}
	return b.explained(ctx, fmt.Errorf("ansible-playbook: %w", err), err.Error())
}

// writeInventory writes the inventory: one host, which is called by the path of
// the tree, as with the Python original.
func (b *build) writeInventory(path string, door *box.Door) error {
	host := map[string]any{
		"ansible_connection":         "chroot",
		"ansible_user":               "root",
		"ansible_pipelining":         true,
		"ansible_become_method":      "nspawn_runner",
		"ansible_chroot_enter":       door.Enter(),
		"ansible_chroot_environment": box.Environment(b.store.Environment),
		"ansible_chroot_owner":       door.Owner,
		"ansible_chroot_group":       door.Group,
	}
	if b.booted {
		host["ansible_connection"] = bootedConnection
	} else {
		host["ansible_chroot_environment"].(map[string]string)[box.Offline] = "1"
	}
	// JSON is YAML, and quotes everything.
	text, err := json.Marshal(map[string]any{"all": map[string]any{"hosts": map[string]any{b.generation.Path: host}}})
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
	return filepath.Join(dir, "ansible", kind) + ":" + others
}

// failure is what the callback notes of a task that failed.
type failure struct {
	Task   string
	Lines  []string
	Output string // the end of what the task's program printed besides
}

// String has the first line of the message and the last ones, which matter.
func (f failure) String() string {
	lines := f.Lines
	if len(lines) > 4 {
		lines = append([]string{lines[0], "..."}, lines[len(lines)-3:]...)
	}
	return fmt.Sprintf("task %q: %s", f.Task, strings.Join(lines, "; "))
}

// lastFailure is what the callback noted last, if a task failed.
func lastFailure(path string) (last failure, noted bool) {
	text, err := os.ReadFile(path)
	if err != nil {
		return last, false
	}
	notes := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return last, json.Unmarshal(notes[len(notes)-1], &last) == nil
}
