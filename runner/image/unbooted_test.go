package image

import (
	"path/filepath"
	"testing"
)

func TestATreeHasStandInsForItsOwnProgramsWhileAPlaybookRuns(t *testing.T) {
	s, _ := fakeStore(t, "sid", "- hosts: all\n  fake: ls $1/usr/local/sbin > $1/etc/lent; head -n1 $1/usr/local/sbin/systemctl > $1/etc/script\n")
	t.Setenv("FAKE_BOOTSTRAP", `: > $root/usr/bin/systemctl; : > $root/usr/sbin/sysctl; mkdir -p $root/usr/local/sbin; echo own > $root/usr/local/sbin/sysctl`)
	generation := create(t, s, "sid")
	for file, want := range map[string]string{
		"etc/lent":              "sysctl\nsysctl.nspawn-runner\nsystemctl\n",
		"etc/script":            "#!/bin/sh\n",
		"usr/local/sbin/sysctl": "own\n",
	} {
		if got := read(t, filepath.Join(generation.Path, file)); got != want {
			t.Errorf("/%s is %q, not %q", file, got, want)
		}
	}
	if exists(filepath.Join(generation.Path, "usr/local/sbin/systemctl")) {
		t.Error("a stand-in was left in the image")
	}
}
