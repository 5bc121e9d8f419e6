package image

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nspawn-runner/runner/image/ansible"
)

func TestRecordSaysHowAGenerationCameToBe(t *testing.T) {
	s, _ := fakeStore(t, "sid", "- hosts: all\n  fake: true\n")
	first := create(t, s, "sid")
	second, _, err := s.Maintain(t.Context(), "sid", ofSid)
	if err != nil {
		t.Fatal(err)
	}
	third := edit(t, s, "sid")
	book, err := ansible.ReadPlaybook(filepath.Join(s.PlaybookDirs[0], "sid.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		generation    Generation
		how, replaced string
	}{{first, byBootstrap, ""}, {second, byMaintenance, first.Name}, {third, byLogin, second.Name}} {
		r, err := s.Record(want.generation)
		if err != nil || r.Format != recordFormat || r.How != want.how || r.Suite != "trixie" || r.Replaced != want.replaced ||
			r.Playbook == nil || *r.Playbook != (PlaybookRecord{book.Path, book.SHA256}) || r.Bytes == 0 || time.Since(r.Built) > time.Minute {
			t.Errorf("record of %s is %+v, %v", want.generation.Name, r, err)
		}
	}
}

func TestRecordThatIsMissingOrNewer(t *testing.T) {
	s, _ := fakeStore(t)
	generation := create(t, s, "sid")
	path := s.recordPath(generation.Name)
	write(t, path, `{"format": 99}`)
	if _, err := s.Record(generation); err == nil || !strings.Contains(err.Error(), "newer nspawn-runner") {
		t.Errorf("error is %v", err)
	}
	write(t, path, `{"format`)
	if _, err := s.Record(generation); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("error is %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Record(generation); err != nil || r.Format != 0 || time.Since(r.Built) > time.Minute {
		t.Errorf("record is %+v, %v", r, err)
	}
	if r, err := s.Record(Generation{Name: "sid/00000000T000000Z"}); err != nil || !r.Built.IsZero() {
		t.Errorf("record is %+v, %v", r, err)
	}
	// Without records the older generation is the one before.
	second := edit(t, s, "sid")
	if err := os.Remove(s.recordPath(second.Name)); err != nil {
		t.Fatal(err)
	}
	if previous, err := s.Previous("sid", second); err != nil || previous != generation {
		t.Errorf("previous is %v, %v", previous, err)
	}
}

func TestRecordsGoWithTheirTrees(t *testing.T) {
	s, _ := fakeStore(t)
	create(t, s, "sid")
	orphan, killed := "sid/20200101T000000Z", "sid/21000101T000000Z"
	write(t, s.recordPath(orphan), "{}")
	write(t, s.recordPath(killed), "{}")
	write(t, filepath.Join(s.StateDir, ".generations", killed, "etc/half"), "")
	write(t, filepath.Join(s.generations("sid"), ".build"), filepath.Base(killed)+"\n")
	if _, err := s.Edit(t.Context(), "sid", func(context.Context, string) error { return nil }); err != nil {
		t.Fatal(err)
	}
	for _, generation := range []string{orphan, killed} {
		if exists(s.recordPath(generation)) {
			t.Errorf("the record of %s is still there", generation)
		}
	}
}
