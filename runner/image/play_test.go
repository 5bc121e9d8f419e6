package image

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestAnImageWithoutAPlaybookHasNoPlays(t *testing.T) {
	if book, err := (Image{}).ReadPlaybook(); err != nil || book.HasPlays() {
		t.Errorf("%+v, %v", book, err)
	}
}

func TestAPlaybookThatLeavesItsImageAloneIsNotRun(t *testing.T) {
	s, calls := fakeStore(t)
	for hosts, want := range map[string]string{
		"localhost": "changes this host, not the image",
		"127.0.0.1": "changes this host, not the image",
		"sid":       "does nothing, as no host is called so",
	} {
		write(t, filepath.Join(s.PlaybookDirs[0], "sid.yaml"), "- hosts: "+hosts+"\n")
		if _, err := s.Create(t.Context(), "sid", CreateOptions{}); err == nil || !strings.Contains(err.Error(), want) || exists(calls) {
			t.Errorf("hosts: %s: %v", hosts, err)
		}
	}
}
