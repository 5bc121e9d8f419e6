package shell

import (
	"os/exec"
	"testing"
)

func TestAShellTakesEachWordAsItIs(t *testing.T) {
	words := []string{"printf", "%s|", "plain", "", "it's", "a b", "$HOME", `back\slash`, "`id`", "new\nline", "~", "*", "#no", "{a,b}", "a;b", "!"}
	want := "plain||it's|a b|$HOME|back\\slash|`id`|new\nline|~|*|#no|{a,b}|a;b|!|"
	all := ""
	for _, word := range words {
		all += Quote(word) + " "
	}
	for _, script := range []string{Command(words), all} {
		if out, err := exec.Command("sh", "-c", script).Output(); err != nil || string(out) != want {
			t.Errorf("%s: %q, %v", script, out, err)
		}
	}
	if got := Command([]string{"ls", "-l", "/a b"}); got != "ls -l '/a b'" {
		t.Error(got)
	}
}
