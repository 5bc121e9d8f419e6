package image

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"nspawn-runner/runner/image/downloads"
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

func TestPackagesThatAptRejectsAreNotServedAgain(t *testing.T) {
	s, _ := fakeStore(t)
	s.DownloadsMax = 1 << 20
	b := &build{store: s}
	var err error
	if b.log, err = s.openLog(Generation{Name: "sid/20060102T150405Z"}); err != nil {
		t.Fatal(err)
	}
	defer b.log.Close()
	const address = "http://mirror.example/a.deb"
	cached := filepath.Join(s.StateDir, ".downloads", fmt.Sprintf("%x", sha256.Sum256([]byte(address))))
	for said, want := range map[string]bool{"E: No space left\n": true, "E: Failed to fetch a.deb  Hash Sum mismatch\n": false} {
		write(t, cached, fmt.Sprintf("%x\ncached", sha256.Sum256([]byte("cached"))))
		_ = b.download(onLoopback, func(p *downloads.Proxy) error {
			proxy, err := url.Parse(strings.TrimPrefix(p.Environment()[0], "http_proxy="))
			if err != nil {
				t.Fatal(err)
			}
			client := http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(proxy), DisableKeepAlives: true}}
			answer, err := client.Get(address)
			if err != nil {
				t.Fatal(err)
			}
			answer.Body.Close()
			fmt.Fprint(b.log, said)
			return io.ErrUnexpectedEOF
		})
		if exists(cached) != want {
			t.Errorf("after %q it is cached: %v", said, !want)
		}
		b.log.tail = nil
	}
}
