package machine

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

// noteSize is the size of each note in a machine's directory, in bytes.
const noteSize = 512

// writeNote writes a short JSON text into a machine's directory. It fills the file up with
// spaces and writes over what is there: ext4 sends a file to the disk at once that is
// truncated and written again (auto_da_alloc in ext4(5)), which takes thirty times as long.
func (s Store) writeNote(id, name string, text []byte) error {
	if len(text) > noteSize {
		return fmt.Errorf("note %s of machine %s: %d bytes", name, id, len(text))
	}
	file, err := os.OpenFile(filepath.Join(s.dir(id), name), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = file.Write(append(bytes.Clone(text), bytes.Repeat([]byte{' '}, noteSize-len(text))...))
	return err
}
