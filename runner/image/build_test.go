package image
import "testing"
func wantNothing(t *testing.T, s *Store, name string) {
	t.Helper()
	for _, path := range []string{s.StateDir+"/"+name, s.generations(name)} {
		if exists(path) {
			t.Errorf("%s is there", path)
		}
	}
}
