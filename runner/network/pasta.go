package network

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"nspawn-runner/runner/apparmor"
	"nspawn-runner/runner/host"
	"nspawn-runner/runner/limits"
	"nspawn-runner/runner/printable"
)

// startPasta starts pasta and returns when the machine's network works. pasta continues in the
// background.
func startPasta(ctx context.Context, m Machine, cgroup *os.File) error {
	// The namespaces are opened here and passed as descriptors. A path below /proc/PID could
	// lead to another process that got the same pid, and until the leader has executed its
	// init, only the host's root may open it.
	network, err := m.Leader.Namespace("net")
	if err != nil {
		return err
	}
	defer network.Close()
	users, err := m.Leader.Namespace("user")
	if err != nil {
		return err
	}
	defer users.Close()

	argv := pastaCommand()
	if m.FirstID > 0 {
		argv = append([]string{"nsenter", "--user=/proc/self/fd/3", "--setuid=0", "--setgid=0", "--"}, argv...)
	} else {
		// A privileged machine has no user namespace. pasta must stay root to enter its
		// network namespace.
		argv = append(argv, "--runas=0")
	}
	files, err := pastaFiles()
	if err != nil {
		return err
	}
	argv = append([]string{"prlimit", "--nofile=" + files}, argv...)
	var words bytes.Buffer
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	// Standard input, because pasta may close other descriptors.
	cmd.Stdin = network
	cmd.Stdout, cmd.Stderr = &words, &words
	cmd.ExtraFiles = []*os.File{users}
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.WaitDelay = time.Second
	// pasta is born into its control group. It has a session of its own, so that it does not get
	// the signals for gitlab-runner's process group.
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(cgroup.Fd()), Setsid: true}
	began := host.Uptime()
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf(`network private: pasta: %w: %s%s; "network: host" and "network: none" need no pasta`, err, pastaWords(words.String()), deniedSince(began))
	}
	spare(cgroup)
	if err := dropFlagless(network); err != nil {
		return fmt.Errorf("network private: %w", err)
	}
	return nil
}

// spare has the kernel kill others first for the memory of a machine. pasta is often its largest
// process, and without it a job would go on without a network. It starts no processes that would
// inherit this. In a container the host may not do it.
func spare(cgroup *os.File) {
	text, _ := os.ReadFile(filepath.Join(cgroup.Name(), "cgroup.procs"))
	for pid := range bytes.FieldsSeq(text) {
		_ = os.WriteFile(filepath.Join("/proc", string(pid), "oom_score_adj"), []byte("-1000"), 0)
	}
}

// pastaCommand returns pasta's command line: pasta(1). No port is forwarded into the machine.
// Standard input is the namespace of its network. The pasta of 2023 has all these options too.
func pastaCommand() []string {
	return []string{
		"pasta", "--quiet", "--config-net", "--no-map-gw", "--netns-only", "--netns=/proc/self/fd/0", "--no-netns-quit",
		"--ns-ifname=" + Interface,
		"--address=" + ownAddress, "--netmask=" + prefixLength, "--gateway=" + gatewayAddress,
		"--tcp-ports=none", "--udp-ports=none", "--tcp-ns=none", "--udp-ns=none",
		"--dns=none", "--search=none",
	}
}

// pastaFiles returns how many files pasta may have open. This limits how many of the host's
// ports a machine takes: pasta has one socket for each connection of a job, and one, for three
// minutes, for each port from which the job sends datagrams. A machine may have a quarter of the
// ports, as of everything that machines share. In the pasta of 2023 a connection takes two files.
func pastaFiles() (string, error) {
	const its = 256 // for pasta's own files
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return "", fmt.Errorf("network private: the host's ports: %w", err)
	}
	var first, last int
	if _, err := fmt.Sscan(string(text), &first, &last); err != nil {
		return "", fmt.Errorf("network private: the host's ports: %w", err)
	}
	return strconv.Itoa(its + (last-first+1)/limits.HostShare), nil
}

// PastaProfiles are the AppArmor profiles of Debian's packages that confine pasta: the pasta of
// Debian 12 is a link to passt.
var PastaProfiles = []string{"passt", "pasta"}

// deniedSince says what a profile of AppArmor has denied pasta since then, for the end of an
// error.
func deniedSince(uptime time.Duration) string {
	denied, _ := apparmor.Denied(PastaProfiles...) // without the kernel's log there is still pasta's message
	for _, d := range denied {
		if d.Uptime >= host.LogTime(uptime) {
			return "; AppArmor: " + d.String()
		}
	}
	return ""
}

// pastaWords returns pasta's messages in one line, without those that say nothing about the cause.
func pastaWords(output string) string {
	var lines []string
	for line := range strings.Lines(output) {
		// It has no syslog in its namespace, and the pasta of 2023 says so of
		// each line.
		if line = printable.Line(line); line != "" && !strings.Contains(line, "to syslog") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "; ")
}
