package image

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLogsAreBounded(t *testing.T) {
	s := &Store{StateDir: t.TempDir()}
	for i := range maxLogs + 5 {
		for _, image := range []string{"base", "base-extra"} {
			log, err := s.openLog(Generation{Name: fmt.Sprintf("%s/20251123T1625%02dZ", image, i)})
			if err != nil {
				t.Fatal(err)
			}
			log.Close()
		}
	}
	for _, image := range []string{"base", "base-extra"} {
		logs, _ := filepath.Glob(filepath.Join(s.StateDir, ".logs", image+"-2*"))
		if len(logs) != maxLogs || !strings.HasSuffix(logs[0], "-20251123T162505Z.log") {
			t.Errorf("%s has %d logs, the oldest is %s", image, len(logs), logs[0])
		}
	}
	if info, err := os.Stat(filepath.Join(s.StateDir, ".logs")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the logs' directory: %v, %v", info.Mode(), err)
	}
}
