package harness

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestNeedInstallsWhatIsMissingAndSaysSo(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root installs packages")
	}
	bin := t.TempDir()
	fake := func(name, script string) {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	fake("dpkg-query", `case "$*" in *there) printf installed;; *removed) printf config-files;; *) exit 1;; esac`)
	fake("apt-get", `echo "$*" >>`+bin+`/log; test "$1" = update || test -e `+bin+`/fresh || { touch `+bin+`/fresh; exit 100; }`)
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))

	var out bytes.Buffer
	if err := Need(t.Context(), &out, "there"); err != nil || out.Len() != 0 {
		t.Errorf("with nothing missing: %v, %q", err, &out)
	}
	if err := Need(t.Context(), &out, "there", "removed", "new"); err != nil {
		t.Error(err)
	}
	if want := "Installing removed new\n"; out.String() != want {
		t.Errorf("it said %q, want %q", &out, want)
	}
	log, _ := os.ReadFile(filepath.Join(bin, "log"))
	const install = "install --option=DPkg::Lock::Timeout=600 --yes --no-install-recommends removed new\n"
	if want := install + "update\n" + install; string(log) != want {
		t.Errorf("apt-get was run as\n%swant\n%s", log, want)
	}
}
