package machine

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

// noteSize is the size of each note in a machine's directory, in bytes.
const noteSize = 512

// writeNote writes a short JSON text to a file in a machine's directory. It pads the text with spaces
// and overwrites the file in place. ext4 writes a file that was truncated to the disk at once
// (auto_da_alloc in ext4(5)), which takes thirty times as long.
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
