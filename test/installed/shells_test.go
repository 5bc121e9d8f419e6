package installed

import (
	"regexp"
	"testing"
)

// typed types lines and a tab to a shell at a terminal, and has the shell print what each has
// become. Lines come with what is expected: a shell that is slow is given more time. fish 4 asks
// what the terminal can do, and reads nothing before it has an answer.
const typed = `
import os, pty, re, select, sys
shell, lines = sys.argv[1].split(), [line.split("|") for line in sys.argv[2:]]
pid, terminal = pty.fork()
if pid == 0:
    os.environ["TERM"] = "xterm"
    os.execvp(shell[0], shell)
def until_silent(seconds):
    said = b""
    while select.select([terminal], [], [], seconds)[0]:
        more = os.read(terminal, 65536)
        said += more
        if more.endswith(b"\x1b[c") or b"\x1b[c\x1b" in more or b"\x1b[0c" in more:
            os.write(terminal, b"\x1b[?62;22c")
    return said.decode(errors="replace")
until_silent(1)
for begun, whole in lines:
    for patience in (0.3, 1, 3, 10):
        os.write(terminal, b"\x15" + begun.encode() + b"\t") # ctrl-u empties the line
        until_silent(patience)
        os.write(terminal, b"\x01echo it is \r") # ctrl-a goes to its beginning
        said = until_silent(patience)
        # What the shell prints has no space before it, what was typed has.
        if re.search("(?m)(^|[^ ])it is nspawn-runner " + re.escape(whole) + r"\s*$", said):
            print("completed:", whole)
            break
    else:
        print("not completed:", whole, repr(said))
`

func shells(t *testing.T, h host) {
	h.bash(t, `
printf 'autoload -Uz compinit\ncompinit -u\n' >/root/.zshrc
printf '. /usr/share/bash-completion/bash_completion\n' >/root/.bashrc
cat >/root/typed.py <<'END'
`+typed+`
END
nspawn-runner prepare --id 74001 base`)
	out := h.bash(t, `
cd /root
for shell in bash zsh fish; do
	python3 typed.py "$shell -i" 'nspawn-runner chroot-sh|chroot-show' 'nspawn-runner chroot-show sm|chroot-show small' \
		'nspawn-runner machine login 74|machine login 74001' 'nspawn-runner cleanup --id 74|cleanup --id 74001' \
		'nspawn-runner chroot-rollback base --to 202601|chroot-rollback base --to 20260101T000000Z' 'nspawn-runner gc --dr|gc --dry-run' >$shell.said 2>&1 &
done
wait
grep '' *.said`)
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if len(regexp.MustCompile(`(?m)^`+shell+`\.said:completed: `).FindAllString(out, -1)) != 6 {
			t.Errorf("%s: %s", shell, out)
		}
	}
	// Without root there is nothing to read, and nothing is said.
	out = h.bash(t, `cd / && setpriv --reuid=65534 --regid=65534 --clear-groups sh -c '
nspawn-runner __completeNoDesc chroot-show "" 2>/dev/null; nspawn-runner __completeNoDesc machine login "" 2>/dev/null'`)
	if out != ":4\n:4\n" {
		t.Errorf("without root: %q", out)
	}
	h.bash(t, "nspawn-runner cleanup --id 74001")
}
