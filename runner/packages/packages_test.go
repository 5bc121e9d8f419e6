package packages

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestAPackageIsThereIfOneOfItsProgramsIs(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin)
	if got := Names(Missing(Needed)); !slices.Equal(got, []string{"systemd-container", "dbus", "passt", "mmdebstrap", "ansible-core"}) {
		t.Errorf("on an empty PATH these are missing: %q", got)
	}
	for _, program := range []string{"systemd-nspawn", "dbus-broker-launch", "pasta", "debootstrap"} {
		if err := os.WriteFile(filepath.Join(bin, program), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if missing := Missing(Needed); !slices.Equal(Names(missing), []string{"ansible-core"}) || Install(missing...) != "apt-get install ansible-core" {
		t.Errorf("%+v", missing)
	}
	if got := Bootstrap("auto").Find(); got != "debootstrap" {
		t.Errorf("images are made by %q", got)
	}
	if got := Bootstrap("mmdebstrap").Find(); got != "" {
		t.Errorf("where mmdebstrap is wanted images are made by %q", got)
	}
}

func TestWhatIsWrittenOnInstallationNamesEachPackage(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, page := range append(pages, "../../README.md") {
		data, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		text.Write(data)
	}
	for _, p := range Needed {
		if !strings.Contains(text.String(), "`"+p.Name+"`") {
			t.Errorf("neither the README nor docs/ names package %s", p.Name)
		}
	}
}
