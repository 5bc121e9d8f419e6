package doctor

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// What the doctor asks of what is installed beside the program, or twice.

// programs are where systemd and shells look for programs, the first ones first:
// environ(7), file-hierarchy(7).
var programs = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"}

// checkProgram looks for a second program of this name, which hides the other one.
func checkProgram(context.Context) []Finding { return checkHidden(programs) }

func checkHidden(dirs []string) []Finding {
	var found []string
	var first os.FileInfo
	for _, dir := range dirs {
		path := filepath.Join(dir, "nspawn-runner")
		info, err := os.Stat(path)
		if err != nil || first != nil && os.SameFile(first, info) {
			continue
		}
		if first == nil {
			first = info
		}
		found = append(found, path)
	}
	switch len(found) {
	case 0:
		return isGood("none is installed in %s", strings.Join(dirs, ", "))
	case 1:
		return isGood("%s", found[0])
	}
	return isWarning("remove the one that is not wanted; if config.toml of gitlab-runner or a unit names it, change that first",
		"%s hides %s: commands may be executed by another version than jobs", found[0], strings.Join(found[1:], " and "))
}

// needrestartFile is the fix's exception.
const needrestartFile = "conf.d/nspawn-runner-doctor.conf"

// needrestartRules are what needrestart must not restart: Perl, as needrestart reads it.
const needrestartRules = "# A restart ends jobs: these are their machines, and who makes and removes them.\n" +
	"$nrconf{override_rc}{qr(^nspawn-runner)} = 0;\n" +
	"$nrconf{override_rc}{qr(^gitlab-runner)} = 0;\n"

// checkNeedrestart looks whether needrestart, which restarts services whose libraries were
// upgraded, leaves machines of jobs alone.
func checkNeedrestart(context.Context) []Finding { return lookAtNeedrestart("/etc/needrestart") }

func lookAtNeedrestart(dir string) []Finding {
	if _, err := os.Stat(filepath.Join(dir, "needrestart.conf")); err != nil {
		return isGood("it is not installed")
	}
	files, err := filepath.Glob(filepath.Join(dir, "conf.d/*.conf"))
	if err != nil {
		return isBad("", "%v", err)
	}
	for _, path := range append(files, filepath.Join(dir, "needrestart.conf")) {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); !strings.HasPrefix(line, "#") && strings.Contains(line, "nspawn-runner") {
				return isGood("%s excepts nspawn-runner", path)
			}
		}
	}
	path := filepath.Join(dir, needrestartFile)
	return withFix(isWarning("add $nrconf{override_rc}{qr(^nspawn-runner)} = 0; and the same for gitlab-runner to a file in "+filepath.Join(dir, "conf.d"),
		"it restarts machines and gitlab-runner when their libraries are upgraded, which ends jobs"), func(context.Context) error {
		if _, err := readOurs(path); err != nil {
			return err
		}
		return writeOurs(path, needrestartRules)
	}, "write %s", path)
}

// textfiles is the directory from which Debian's node_exporter reads what others count.
const textfiles = "/var/lib/prometheus/node-exporter"

// metricsOld is when numbers are too old that a timer writes each minute.
const metricsOld = 10 * time.Minute

// checkTextfile looks whether the numbers for Prometheus are written, if they are to be.
func checkTextfile(ctx context.Context) []Finding {
	const timer = "nspawn-runner-metrics.timer"
	enabled := exec.CommandContext(ctx, "systemctl", "is-enabled", "--quiet", timer).Run() == nil
	return lookAtTextfile(textfiles, timer, enabled)
}

func lookAtTextfile(dir, timer string, enabled bool) []Finding {
	if !enabled {
		return isGood("numbers for Prometheus are not written (%s is not enabled)", timer)
	}
	if _, err := os.Stat(dir); err != nil {
		return isGood("there is no %s, so no node_exporter reads numbers", dir)
	}
	path := filepath.Join(dir, "nspawn-runner.prom")
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return isWarning("systemctl start "+timer+"; systemctl status nspawn-runner-metrics", "%s is enabled, but there is no %s", timer, path)
	case err != nil:
		return isWarning("", "%v", err)
	case time.Since(info.ModTime()) > metricsOld:
		return isWarning("systemctl status "+timer+" nspawn-runner-metrics", "%s is %s old, and %s should write it each minute", path, time.Since(info.ModTime()).Round(time.Minute), timer)
	}
	return isGood("%s is written", path)
}
