package build

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nspawn-runner/runner/image/downloads"
)

func TestPackagesThatAptRejectsAreNotServedAgain(t *testing.T) {
	dir := t.TempDir()
	b := &Build{Downloads: downloads.Cache{Dir: dir, Max: 1 << 20}, Log: openTestLog(t, nil)}
	defer b.Log.Close()
	const address = "http://mirror.example/a.deb"
	cached := filepath.Join(dir, fmt.Sprintf("%x", sha256.Sum256([]byte(address))))
	for said, want := range map[string]bool{"E: No space left\n": true, "E: Failed to fetch a.deb  Hash Sum mismatch\n": false} {
		if err := os.WriteFile(cached, fmt.Appendf(nil, "%x\ncached", sha256.Sum256([]byte("cached"))), 0o600); err != nil {
			t.Fatal(err)
		}
		_ = b.Download(OnLoopback, func(p *downloads.Proxy) error {
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
			fmt.Fprint(b.Log, said)
			return io.ErrUnexpectedEOF
		})
		if _, err := os.Stat(cached); (err == nil) != want {
			t.Errorf("after %q it is cached: %v", said, !want)
		}
		b.Log.begin("again")
	}
}
