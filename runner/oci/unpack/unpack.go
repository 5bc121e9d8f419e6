// Package unpack unpacks the layers of an image into a tree.
//
// Layers are hostile: their names, links and sizes may be anything. So another process unpacks them, the hidden
// command [Command] of this program. It has namespaces of its own, and the tree is its root directory. So it sees
// no other file, process or network, and a link out of the tree leads to nothing. It has the ids 0 to 65535 of the
// host and few capabilities over them. Its memory, and what it writes, are limited.
//
//	unpack.go      the protocol between both processes
//	process.go     starts the process and sends it layers
//	confine.go     the process: confines itself, and reads layers
//	calls.go       the system calls that the process may make
//	tree.go        writes the entries of layers
//	decompress.go  decompresses layers
//	remove.go      removes files that a later layer replaces
//	furnish.go     makes the directories that a machine needs
package unpack

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Command is the hidden command of the process. Its arguments are the tree and the limits.
const Command = "unpack-layers"

// maxID is the highest user id and group id that a file may belong to.
const maxID = 1<<16 - 1

// Limits bound an image.
type Limits struct {
	// Bytes bounds the size of all decompressed layers together, and what their files take on the
	// disk. Files bounds the number of files, directories and links.
	Bytes, Files uint64
}

// Result describes what was unpacked.
type Result struct {
	// Bytes is about how many bytes the files take on the disk.
	Bytes uint64 `json:"bytes"`
	// Files counts the entries of the layers, and the directories that were made without an entry.
	Files uint64 `json:"files"`
}

// end is what the process writes when it ends.
type end struct {
	Result
	// OfHost says that the host is to blame for a failure.
	OfHost bool `json:"of_host,omitempty"`
}

// frame precedes each layer on the way to the process.
type frame struct {
	// Size is how many bytes of the compressed layer follow. endOfLayers says that there are no
	// further layers.
	Size int64
	// Sum is the SHA-256 of the decompressed layer.
	Sum [32]byte
}

const endOfLayers = -1

func (f frame) writeTo(w io.Writer) error { return binary.Write(w, binary.BigEndian, f) }

func readFrame(r io.Reader) (f frame, err error) {
	if err = binary.Read(r, binary.BigEndian, &f); err != nil {
		return frame{}, fmt.Errorf("read what the next layer is: %w", err)
	}
	return f, nil
}
