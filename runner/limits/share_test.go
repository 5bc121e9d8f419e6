package limits

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestAMachinesSharesLeaveTheHostMoreAndAreEnoughToBoot(t *testing.T) {
	dir := t.TempDir()
	for name, host := range map[string]string{"max_inotify_instances": "128", "max_inotify_watches": "1000000", "max_net_namespaces": "40", "max_user_namespaces": "0"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(host+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := shares(dir)
	want := []string{"max_inotify_instances=32", "max_inotify_watches=250000", "max_net_namespaces=32", "max_user_namespaces=0"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
}
