// Package unpack makes a tree of the layers of an image.
//
// Layers are hostile: their names, links and sizes may be anything. So another process unpacks
// them, the command [Command] of this program. It has namespaces of its own, and the tree is
// its root directory: it sees no other file, process or network. A link that leads out of the
// tree leads to nothing. It has the ids 0 to 65535 of the host and few capabilities over them,
// and bounds on its memory and on what it writes.
//
//	unpack.go      what both sides agree on
//	process.go     this program's side: starts the process and sends it layers
//	confine.go     the process: leaves the host
//	calls.go       the system calls that it may make
//	tree.go        writes the entries of layers
//	decompress.go  decompresses them
//	remove.go      removes what later layers replace
//	furnish.go     what a tree needs to be the root of a machine
package unpack

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Command is the hidden command that is the other process. Its arguments are the tree and the
// limits.
const Command = "unpack-layers"

// MaxID is the highest user id and group id that a file may belong to.
const MaxID = 1<<16 - 1

// Limits bound an image.
type Limits struct {
	// Bytes is how many bytes its layers may have together when they are decompressed, Files
	// how many files, directories and links.
	Bytes, Files uint64
}

// Result is what was unpacked.
type Result struct {
	// Bytes is about how many bytes the files take on disk.
	Bytes uint64 `json:"bytes"`
	// Files is how many entries the layers had, and directories that no entry is for.
	Files uint64 `json:"files"`
}

// end is what the process says when it ends.
type end struct {
	Result
	// OfHost says that it failed for a reason that lies with the host.
	OfHost bool `json:"of_host,omitempty"`
}

// frame is in front of each layer on the way to the process.
type frame struct {
	// Size is how many bytes of the layer follow, as they came from the registry; endOfLayers
	// is for no further layer.
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
