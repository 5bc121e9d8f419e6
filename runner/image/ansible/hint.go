package ansible

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"nspawn-runner/runner/image/build"
)

// Some failures say nothing to the author of the playbook, though the cure is known. A
// hint adds it to the words of a program.

// run is one run of a playbook.
type run struct {
	*build.Build
	booted bool
}

// wantsBoot is the cure of what fails only because nothing is booted.
const wantsBoot = "nothing is booted in this build; with nspawn_runner_build: booted in the playbook's vars the tasks run in the booted image, where services run"

// unbooted are the words in which programs say that there is no systemd to ask, that a
// service does not run which the playbook counts on, or that the box has no network of its own.
var unbooted = regexp.MustCompile(`(?i)` + strings.Join([]string{
	`not been booted with systemd`,
	`failed to connect to( system| user)?( scope)? bus`,
	`failed to (create|get) (bus|d-?bus) connection`,
	`connect(ion)? to (\S+ )*(server|socket|daemon)\b.*(no such file|refused|running)`,
	`can't connect to .*socket`,
	`(localhost|127\.0\.0\.1|::1)\b.*(connection ?refused)`,
	`timeout when waiting for (localhost|127\.|::1|/run/|/var/run/)`,
	`unix://\S+ no such file`,
	`unable to perform an operation on node`,
	`error while fetching server api version`,
	`errors pretty printing info`,
	`could not determine the version of the rabbitmq server`,
	`iptables.*permission denied|could not fetch rule set generation id|nf_tables.*not permitted`,
}, "|"))

// tooOldPython are the words of a Python that is older than ansible's modules want it.
var tooOldPython = regexp.MustCompile(`requires a minimum of Python|future feature annotations|SyntaxError: invalid syntax`)

// tooNewPython are those of an ansible's modules that are older than Python 3.12.
var tooNewPython = regexp.MustCompile(`No module named 'ansible\.module_utils\.six\.moves'`)

// noPython are those of a shell in an image without one.
var noPython = regexp.MustCompile(`python[0-9.]*: (No such file|not found)|No python interpreters found|probably need to set the interpreter`)

// tooOldAnsible are those of an ansible that does not know what the playbook asks for.
var tooOldAnsible = regexp.MustCompile(`couldn't resolve module/action|Unsupported parameters for|is not a valid attribute for a`)

// tooNewAnsible are those of an ansible that does not know any more what old roles ask for.
var tooNewAnsible = regexp.MustCompile(`Unsupported parameters for \(\S*\.command\) module: warn\b`)

// reboots are the words in which what is built refuses to be rebooted or turned off.
var reboots = regexp.MustCompile(`(?i)call to (reboot|poweroff|halt|kexec) failed|failed to start (reboot|poweroff|halt|kexec)\.target|reboot command failed|failed to talk to init daemon`)

// explained adds to a failure of a playbook what cures it, where its words tell.
func (r run) explained(ctx context.Context, failure error, words string) error {
	if hint := r.hint(ctx, words); hint != "" {
		return fmt.Errorf("%w; %s", failure, hint)
	}
	return failure
}

// noRsync is what synchronize says where one end has no rsync.
var noRsync = regexp.MustCompile(`rsync: (command )?not found|Failed to find required executable "?rsync`)

// noNodes are the words of mknod(1), also within debootstrap, in a machine.
var noNodes = regexp.MustCompile(`mknod: \S+: Operation not permitted`)

// ofCommand are the words of ansible for a program of the playbook's that failed. What that
// says of Python is of itself.
const ofCommand = "non-zero return code"

// hidden is what the callback notes in place of what a task said that has no_log.
const hidden = "its output is hidden by no_log"

// hint says what cures a failure that has these words, or nothing.
func (r run) hint(ctx context.Context, words string) string {
	if !strings.Contains(words, ofCommand) {
		if hint := r.pythonHint(ctx, words); hint != "" {
			return hint
		}
	}
	switch {
	case tooNewAnsible.MatchString(words):
		return fmt.Sprintf("this host has ansible-core %s, and 2.14 took this parameter away: a newer version of the role is without it", ansibleVersion(ctx))
	case tooOldAnsible.MatchString(words):
		return fmt.Sprintf("this host has ansible-core %s: a newer one may know it, or a collection: Debian's package ansible has many, 'ansible-galaxy collection install' brings others", ansibleVersion(ctx))
	case reboots.MatchString(words):
		return "what is built is not rebooted, nor turned off, by its playbook: its jobs' machines boot anew"
	case noRsync.MatchString(words):
		return "synchronize needs rsync on this host and in the image: install it by a task before, and on this host by apt-get install rsync"
	case r.booted && noNodes.MatchString(words):
		return "a booted build makes no device nodes, as no job does; with nspawn_runner_build: unbooted it does"
	case !r.booted && unbooted.MatchString(words):
		return wantsBoot
	case !r.booted && strings.Contains(words, hidden):
		return "if it needs a running service, nspawn_runner_build: booted in the playbook's vars cures it; else no_log: false on the task shows what it says"
	case strings.Contains(words, hidden):
		return "no_log: false on the task shows what it says"
	}
	return ""
}

// pythonHint is for what ansible's modules say of the Python that shall execute them.
func (r run) pythonHint(ctx context.Context, words string) string {
	switch {
	case tooOldPython.MatchString(words):
		return fmt.Sprintf("this host has ansible-core %s, the image %s, which is too old for it: "+
			"run an older ansible-core, first in PATH (2.16 knows Python 2.7 and 3.6, 2.14 also 3.5), or set ansible_python_interpreter to a newer Python in the image",
			ansibleVersion(ctx), r.python())
	case tooNewPython.MatchString(words):
		return fmt.Sprintf("this host has ansible-core %s, which is too old for the image's %s: run a newer one, first in PATH", ansibleVersion(ctx), r.python())
	case noPython.MatchString(words):
		return "the image lacks the Python that modules need: with gather_facts: false, a first task 'ansible.builtin.raw: apt-get update && apt-get -y install python3' brings it"
	}
	return ""
}

var ansibleVersionLine = regexp.MustCompile(`^ansible-playbook \[?(?:core )?([0-9][^\]\s]*)`)

// ansibleVersion is the version of the host's ansible-core, for people.
func ansibleVersion(ctx context.Context) string {
	out, _ := exec.CommandContext(ctx, "ansible-playbook", "--version").Output()
	if version := ansibleVersionLine.FindSubmatch(out); version != nil {
		return string(version[1])
	}
	return "of an unknown version"
}

// python names what the image's python3 is, for people.
func (r run) python() string {
	tree, err := os.OpenRoot(r.Root)
	if err != nil {
		return "an unknown Python"
	}
	defer tree.Close()
	target, err := tree.Readlink("usr/bin/python3")
	if version, is := strings.CutPrefix(filepath.Base(target), "python"); err == nil && is {
		return "Python " + version
	}
	return "an unknown Python"
}
