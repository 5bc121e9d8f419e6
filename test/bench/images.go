package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// included are the packages that nspawn-runner's bootstrap installs, for the
// plain debootstrap beside it.
const included = "git,dbus,systemd,python3,ca-certificates,systemd-sysv,netbase,procps"

// images measures how images come into being: once each, because they take
// minutes. What debootstrap made stays until the end: removing it would slow
// down what comes after it on ext4.
func (b *bench) images() (err error) {
	plainDir := filepath.Join(b.state, ".plain-debootstrap")
	plain, err := watch("eatmydata", "debootstrap", "--variant=minbase", "--include="+included, "bookworm", plainDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(plainDir)) }()
	fmt.Printf("%-42s %6.1f s  %5.1f s of processor\n", "eatmydata debootstrap of the same", plain.total.Seconds(), plain.processor.Seconds())

	settings, err := os.ReadFile(b.config)
	if err != nil {
		return err
	}
	noBases := b.config + ".no-bases"
	if err := os.WriteFile(noBases, append(settings, "base_max_age: 0\n"...), 0o600); err != nil {
		return err
	}
	for _, c := range []struct{ what, config, image string }{
		{"creation, nothing downloaded before", b.config, "first"},
		{"creation with a base", b.config, "second"},
		{"creation, all downloaded, no base", noBases, "third"},
	} {
		steps, err := watch(b.driver, "--config", c.config, "chroot-create", "--suite", "bookworm", c.image)
		if err != nil {
			return err
		}
		fmt.Printf("%-42s %6.1f s  %5.1f s of processor  %.2f  %.2f  %s\n", c.what, steps.total.Seconds(), steps.processor.Seconds(),
			float64(steps.total)/float64(plain.total), float64(steps.processor)/float64(plain.processor), steps)
	}
	return b.maintenance()
}

// maintenance measures one that changes nothing, and a playbook of thirty tasks
// through our connection and in the Python original's way.
func (b *bench) maintenance() error {
	playbook := filepath.Join(b.state, "second.yaml")
	if err := os.WriteFile(playbook, []byte("- hosts: all\n  tasks: [{file: {path: /srv/bench, state: directory}}]\n"), 0o600); err != nil {
		return err
	}
	for range 2 { // the first one changes something
		steps, err := watch(b.driver, "--config", b.config, "chroot-maintenance", "second")
		if err != nil {
			return err
		}
		fmt.Printf("%-42s %6.1f s, without its playbook %.1f s  %s\n", "maintenance", steps.total.Seconds(), (steps.total - steps.of("playbook")).Seconds(), steps)
	}

	var tasks strings.Builder
	tasks.WriteString("- hosts: all\n  gather_facts: true\n  tasks:\n")
	for i := range 10 {
		fmt.Fprintf(&tasks, "    - copy: {content: \"%d\", dest: /srv/copied%[1]d}\n    - command: test -e /srv/copied%[1]d\n    - file: {path: /srv/dir%[1]d, state: directory}\n", i)
	}
	if err := os.WriteFile(playbook, []byte(tasks.String()), 0o600); err != nil {
		return err
	}
	steps, err := watch(b.driver, "--config", b.config, "chroot-maintenance", "second")
	if err != nil {
		return err
	}
	var original []time.Duration
	if err := timed(&original, func() error { return b.originalsWay(playbook) }); err != nil {
		return err
	}
	ours := steps.of("playbook")
	fmt.Printf("%-42s %6.1f s, one systemd-nspawn a command %.1f s  %.2f\n", "a playbook of 30 tasks", ours.Seconds(), original[0].Seconds(), float64(ours)/float64(original[0]))
	return nil
}

// originalsWay runs a playbook as the Python original did: the connection chroot
// with a program that starts systemd-nspawn for each command. Our own connection
// plays its part: what enters is all that is different.
func (b *bench) originalsWay(playbook string) error {
	root, err := filepath.EvalSymlinks(filepath.Join(b.state, "first"))
	if err != nil {
		return err
	}
	inventory, err := json.Marshal(map[string]any{"all": map[string]any{"hosts": map[string]any{root: map[string]any{
		"ansible_connection":         "chroot",
		"ansible_chroot_enter":       []string{"systemd-nspawn", "--console=pipe", "--register=no", "-qD", root},
		"ansible_chroot_environment": map[string]string{"PATH": os.Getenv("PATH")},
	}}}})
	if err != nil {
		return err
	}
	path := filepath.Join(b.state, ".inventory.yaml")
	if err := os.WriteFile(path, inventory, 0o600); err != nil {
		return err
	}
	cmd := exec.Command("ansible-playbook", "--inventory", path, playbook)
	cmd.Env = append(os.Environ(), "ANSIBLE_CONNECTION_PLUGINS="+b.plugins, "ANSIBLE_INVENTORY_ENABLED=yaml")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ansible-playbook: %w: %s", err, out)
	}
	return nil
}

// steps are the lines that a program prints to standard error, with their times.
// The processor's time, its children's too, is what other programs on the machine
// disturb least.
type steps struct {
	total, processor time.Duration
	names            []string
	took             []time.Duration
}

// watch runs a program.
func watch(name string, args ...string) (s steps, err error) {
	cmd := exec.Command(name, args...)
	out, err := cmd.StderrPipe()
	if err != nil {
		return s, err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return s, err
	}
	lines := bufio.NewScanner(out)
	last, said := began, ""
	for lines.Scan() {
		said += lines.Text() + "\n"
		_, name, _ := strings.Cut(lines.Text(), ": ")
		if len(s.names) > 0 {
			s.took = append(s.took, time.Since(last))
		}
		last = time.Now()
		s.names = append(s.names, name)
	}
	if err := errors.Join(lines.Err(), cmd.Wait()); err != nil {
		return s, fmt.Errorf("%q: %w: %s", args, err, said)
	}
	s.took = append(s.took, time.Since(last))
	s.total = time.Since(began)
	s.processor = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return s, nil
}

// of is the time of the step whose name begins like this.
func (s steps) of(prefix string) time.Duration {
	for i, name := range s.names {
		if strings.HasPrefix(name, prefix) {
			return s.took[i]
		}
	}
	return 0
}

// String lists the steps that took a tenth of a second and more.
func (s steps) String() string {
	var list []string
	for i, name := range s.names {
		if s.took[i] >= 100*time.Millisecond {
			list = append(list, fmt.Sprintf("%s %.1f", strings.Join(strings.Fields(name)[:min(2, len(strings.Fields(name)))], " "), s.took[i].Seconds()))
		}
	}
	return "(" + strings.Join(list, ", ") + ")"
}
