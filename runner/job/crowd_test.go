package job

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheAdministratorIsToldWhenMoreMachinesRunThanInotifyAllows(t *testing.T) {
	dir, limit := t.TempDir(), filepath.Join(t.TempDir(), "limit")
	for machines := range 17 {
		if err := os.Mkdir(filepath.Join(dir, fmt.Sprint(machines)), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			limit string
			want  bool
		}{{"128\n", machines+1 > 16}, {"1073741824\n", false}, {"x", false}} {
			if err := os.WriteFile(limit, []byte(c.limit), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := crowd(dir, limit); strings.Contains(got, "fs.inotify.max_user_instances is 128; 'nspawn-runner doctor'") != c.want {
				t.Errorf("%d machines, limit %q: %q", machines+1, c.limit, got)
			}
		}
	}
	if got := crowd(dir, limit+".none"); got != "" {
		t.Error(got)
	}
}
