package image

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestProgramsOfABuildUseTheProxyAndTheImageForgetsIt(t *testing.T) {
	s, _ := fakeStore(t, "sid", "- hosts: all\n  fake: cp $1/etc/apt/apt.conf.d/00nspawn-runner $1/etc/lent\n")
	s.DownloadsMax = 1 << 20
	t.Setenv("FAKE_BOOTSTRAP", `echo "$http_proxy" > "$root/etc/proxy"`)
	generation := create(t, s, "sid")
	const proxy = "http://build:"
	if got := read(t, filepath.Join(generation.Path, "etc/proxy")); !strings.HasPrefix(got, proxy) {
		t.Errorf("the bootstrap's proxy was %q", got)
	}
	got := read(t, filepath.Join(generation.Path, "etc/lent"))
	if !strings.Contains(got, `Acquire::http::Proxy "`+proxy) || !strings.Contains(got, `Acquire::https::Proxy "DIRECT"`) {
		t.Errorf("apt's was %q", got)
	}
	if exists(filepath.Join(generation.Path, "etc/apt/apt.conf.d/00nspawn-runner")) {
		t.Error("it is still in the image")
	}
}
