package gitlab

import (
	"fmt"
	"strings"
)

// The colours that gitlab-runner uses in the job's log, in its own lines and
// in those that its scripts print.
const (
	green  = "\x1b[32;1m"
	yellow = "\x1b[0;33m"
	red    = "\x1b[31;1m"
	cyan   = "\x1b[36;1m"
	reset  = "\x1b[0;m"
)

// script collects the commands of one sub-stage.
type script struct {
	body strings.Builder
}

// line adds shell text as it is.
func (s *script) line(format string, args ...any) {
	fmt.Fprintf(&s.body, format+"\n", args...)
}

// command adds one command of quoted words.
func (s *script) command(words ...string) {
	s.line("%s", quoteAll(words))
}

// notice prints a line in green.
func (s *script) notice(format string, args ...any) {
	s.command("echo", green+fmt.Sprintf(format, args...)+reset)
}

// warning prints a line in yellow.
func (s *script) warning(format string, args ...any) {
	s.command("echo", yellow+fmt.Sprintf(format, args...)+reset)
}

// user adds the lines a person wrote, each announced before it runs.
func (s *script) user(lines []string) {
	for _, l := range lines {
		l = strings.TrimSpace(l)
		first, _, several := strings.Cut(l, "\n")
		switch {
		case l == "":
			s.command("echo")
		case several:
			s.notice("$ %s # collapsed multi-line command", first)
		default:
			s.notice("$ %s", l)
		}
		s.line("%s", l)
	}
}

// exports gives the script the job's variables. They come from nowhere else:
// the driver passes none of its environment into the machine.
func (s *script) exports(t *try, vs variables) {
	for _, v := range vs {
		value := v.Value
		if v.File {
			value = t.tempDir() + "/" + v.Key
			s.command("mkdir", "-p", t.tempDir())
			s.line("printf '%%s' %s > %s", quote(v.Value), quote(value))
		}
		s.line("export %s=%s", quote(v.Key), quote(value))
	}
}

// withRunner adds what needs a program gitlab-runner in the machine. Without
// it there is a warning and no failure.
func (s *script) withRunner(action string, body func()) {
	s.line("if gitlab-runner --version >/dev/null 2>&1; then")
	body()
	s.line("else")
	s.warning("Missing gitlab-runner. %s is disabled.", action)
	s.line("fi")
}

// attempt adds a command whose failure is no more than a warning.
func (s *script) attempt(words []string, done, failed string) {
	s.line("if %s; then", quoteAll(words))
	s.notice("%s", done)
	s.line("else")
	s.warning("%s", failed)
	s.line("fi")
}

// text is the whole script. Everything is one eval, so that the shell has
// read its last byte before the first command can touch it, in a subshell
// that finds end of file on stdin.
func (s *script) text(shell string, version int) string {
	trap := "trap 'exit 1' TERM"
	if version < 19 {
		// As it was until 19.0: a handler "exit" for two signals, so that a
		// terminated shell reports the status of its last command.
		trap = "trap exit 1 TERM"
	}
	return "#!/usr/bin/env " + shell + "\n\n" +
		trap + "\n\n" +
		"if set -o | grep pipefail > /dev/null; then set -o pipefail; fi; set -o errexit\n" +
		"set +o noclobber\n" +
		"(eval " + quote(s.body.String()) + ") < /dev/null\n" +
		"exit 0\n"
}

func quoteAll(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = quote(w)
	}
	return strings.Join(quoted, " ")
}

// quote makes one word of any text, in bash's $'...' form where it needs
// quoting.
func quote(text string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:,@%+="
	if text != "" && strings.Trim(text, plain) == "" {
		return text
	}
	var b strings.Builder
	b.WriteString("$'")
	for _, c := range []byte(text) {
		switch {
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\'' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c > '~':
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteString("'")
	return b.String()
}
