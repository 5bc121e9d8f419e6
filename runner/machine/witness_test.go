package machine

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What systemctl show prints of units: those without a result have no such line.
func TestAWitnessTellsWhichServicesWereKilledSinceItCame(t *testing.T) {
	const before = "Id=old.service\nResult=timeout\n\nId=db.service\nResult=success\n\nId=-.slice\n\nId=java.service\nResult=success\n==\n"
	for after, want := range map[string][]string{
		"Id=old.service\nResult=timeout\n\nId=java.service\nResult=exit-code\n==\n": nil,
		"Id=db.service\nResult=timeout\n\nId=new.service\nResult=oom-kill\n==\n":    {"db.service (timeout)", "new.service (oom-kill)"},
		"Id=a\x07b.service\nResult=watchdog\n==\n":                                  {"a b.service (watchdog)"},
		"Id=db.service\nResult=succ":                                                {"it is not known what"},
		"":                                                                          {"it is not known what"},
	} {
		notes, err := os.Create(filepath.Join(t.TempDir(), "notes"))
		if err != nil {
			t.Fatal(err)
		}
		defer notes.Close()
		if _, err := notes.WriteString(before + after); err != nil {
			t.Fatal(err)
		}
		got := (&witness{notes}).killed()
		if !slices.EqualFunc(got, want, strings.HasPrefix) {
			t.Errorf("%q: %q, want %q", after, got, want)
		}
	}
}
