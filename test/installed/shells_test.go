package installed

import (
	"fmt"
	"regexp"
	"testing"
)

// typed types words and a tab to a shell at a terminal, and then has the shell print what
// the line has become. A shell is done when it has said nothing for a while.
const typed = `
import os, pty, select, sys
shell, lines = sys.argv[1].split(), sys.argv[2:]
pid, terminal = pty.fork()
if pid == 0:
    os.environ["TERM"] = "xterm"
    os.execvp(shell[0], shell)
def until_silent(seconds):
    said = b""
    while select.select([terminal], [], [], seconds)[0]:
        said += os.read(terminal, 65536)
    return said
until_silent(3)
for line in lines:
    os.write(terminal, line.encode() + b"\t")
    until_silent(1)
    os.write(terminal, b"\x01echo it is \r") # ctrl-a goes to the beginning of the line
    print(until_silent(1).decode(errors="replace"), flush=True)
`

func shells(t *testing.T, h host) {
	h.bash(t, `
apt-get install -qq -y --no-install-recommends bash-completion zsh fish >/dev/null
printf 'autoload -Uz compinit\ncompinit -u\n' >/root/.zshrc
printf '. /usr/share/bash-completion/bash_completion\n' >/root/.bashrc
cat >/root/typed.py <<'END'
`+typed+`
END
nspawn-runner prepare --id 74001 base`)
	for _, shell := range []string{"bash -i", "zsh -i", "fish -i"} {
		out := h.bash(t, fmt.Sprintf(`cd /root && python3 typed.py '%s' 'nspawn-runner chroot-sh' 'nspawn-runner chroot-show sm' \
	'nspawn-runner machine login 74' 'nspawn-runner cleanup --id 74' 'nspawn-runner chroot-rollback base --to 202601' 'nspawn-runner gc --dr' 2>&1`, shell))
		for _, line := range []string{"chroot-show", "chroot-show small", "machine login 74001", "cleanup --id 74001", "chroot-rollback base --to 20260101T000000Z", "gc --dry-run"} {
			// The line as it was typed ends with colours, what it prints does not.
			if !regexp.MustCompile(`(?m)^it is nspawn-runner ` + regexp.QuoteMeta(line) + `\s*$`).MatchString(out) {
				t.Errorf("%s did not complete %q: %q", shell, line, out)
			}
		}
	}
	// Without root there is nothing to read, and nothing is said.
	out := h.bash(t, `setpriv --reuid=65534 --regid=65534 --clear-groups sh -c 'cd /; nspawn-runner __complete chroot-show "" 2>/dev/null; nspawn-runner __complete machine login "" 2>/dev/null'`)
	want(t, out, "small\n")
	h.bash(t, "nspawn-runner cleanup --id 74001")
}
