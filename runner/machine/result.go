package machine

import (
	"os"
	"path/filepath"
)

// KeepResult keeps a text about the result of a job in the directory of its main machine, until the
// machine is removed.
func (s Store) KeepResult(job string, text []byte) error {
	return s.writeNote(job, "result.json", text)
}

// Result returns the text of KeepResult.
func (s Store) Result(job string) ([]byte, error) {
	return os.ReadFile(filepath.Join(s.dir(job), "result.json"))
}
