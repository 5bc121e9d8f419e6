package runner

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nspawn-runner/runner/host"
)

// replaced is the variable with the path of a program that is replaced while it runs. The test is
// that program, too.
const replaced = "TEST_REPLACED"

func TestAfterAnUpgradeTheProgramUnpacksWithItsOwnFile(t *testing.T) {
	if path := os.Getenv(replaced); path != "" {
		beReplaced(t, path)
		return
	}
	program := filepath.Join(t.TempDir(), "program")
	self, err := os.ReadFile(host.Self)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, self, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-test.v", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), replaced+"="+program)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "\n"+t.Name()+"\n") || strings.Contains(string(out), "new program") {
		t.Errorf("%v: %s", err, out)
	}
}

// beReplaced has the child of a host list this test, after another program has taken the place of
// this one.
func beReplaced(t *testing.T, path string) {
	h, err := New(Options{ConfigFile: os.DevNull})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", []byte("#!/bin/sh\necho new program\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	child := exec.Command(h.oci.Program, "-test.list=^"+t.Name()+"$")
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	if err := child.Run(); err != nil {
		t.Fatal(err)
	}
}
