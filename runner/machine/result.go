package machine

import (
	"os"
	"path/filepath"
)

// KeepResult keeps what is known of the result of a job in the directory of its main machine,
// with which it goes.
func (s Store) KeepResult(job string, text []byte) error {
	return s.writeNote(job, "result.json", text)
}

// Result returns what KeepResult kept.
func (s Store) Result(job string) ([]byte, error) {
	return os.ReadFile(filepath.Join(s.dir(job), "result.json"))
}
