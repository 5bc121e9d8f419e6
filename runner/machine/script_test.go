package machine

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// wrapped executes a script as a machine does, with a file of variables of our own.
func wrapped(t *testing.T, file string, environment map[string]string, source string) string {
	t.Helper()
	body, err := sealed(strings.NewReader(source))
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	args := Script{Shell: "/bin/sh", environment: environment}.command()
	for i := range args {
		if args[i] == variables {
			args[i] = file
		}
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=/root", "OF=unit"}
	cmd.Stdin, cmd.Stderr = body.file, &stderr
	out, err := cmd.Output()
	if err != nil || stderr.Len() > 0 || !body.executed() {
		t.Errorf("%v, %q, executed: %v", err, stderr.String(), body.executed())
	}
	return string(out)
}

func TestTheMachinesVariablesAreReadAsALoginReadsThem(t *testing.T) {
	for line, want := range map[string]string{
		`A=plain`:                     "plain",
		`export A=exported`:           "exported",
		"  export\tA=\"two  words\" ": "two  words",
		`A='single "x"'`:              `single "x"`,
		`A=a b c   # why`:             "a b c",
		`A="a # b" # why`:             "a # b",
		`A=it's`:                      "it's",
		"A=last\nA=first":             "first",
		`A=$HOME`:                     "$HOME",
		`A=\\`:                        `\\`,
		"A=carried\n\n# A=no\nB = no": "carried",
		`A=`:                          "",
		`A="open`:                     "unset",
		`A-B=x`:                       "unset",
		`#A=x`:                        "unset",
		`A`:                           "unset",
		"A\x00=x\xff\xfe\nUID=7":      "x\xff\xfe", // bash reads past a NUL
	} {
		file := filepath.Join(t.TempDir(), "environment")
		if err := os.WriteFile(file, []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := wrapped(t, file, nil, `printf %s "${A-unset}"`); got != want {
			t.Errorf("%q: %q, not %q", line, got, want)
		}
	}
}

func TestOfTwoVariablesTheLaterOneWins(t *testing.T) {
	file := filepath.Join(t.TempDir(), "environment")
	if err := os.WriteFile(file, []byte("OF=file\nPATH=/opt/bin:/usr/bin:/bin\nFILE=1"), 0o600); err != nil {
		t.Fatal(err)
	}
	const source = `echo "$OF $FILE $IMAGE $PATH $HOME"; OF=job; echo $OF`
	if got := wrapped(t, file, nil, source); got != "file 1  /opt/bin:/usr/bin:/bin /root\njob\n" {
		t.Errorf("of the file: %q", got)
	}
	if got := wrapped(t, file, map[string]string{"OF": "image", "IMAGE": "$x `y`\nz"}, source); got != "image 1 $x `y`\nz /opt/bin:/usr/bin:/bin /root\njob\n" {
		t.Errorf("of the image: %q", got)
	}
}

func TestWhatIsNoFileOfVariablesDelaysNoScript(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/zero", filepath.Join(dir, "device")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("loop", filepath.Join(dir, "loop")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"fifo", "device", "loop", "none", "."} {
		if got := wrapped(t, filepath.Join(dir, name), map[string]string{"IMAGE": "1"}, "echo $OF $IMAGE"); got != "unit 1\n" {
			t.Errorf("%s: %q", name, got)
		}
	}
}
