package unpack

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// maxWindow bounds how far back a zstd layer may refer, which takes as much memory: the most
// that zstd(1) makes without --long.
const maxWindow = 128 << 20

// decompress recognizes how a layer is compressed by its first bytes: what registries say of
// that is often wrong.
func decompress(layer io.Reader) (io.Reader, error) {
	buffered := bufio.NewReaderSize(layer, 1<<20)
	magic, err := buffered.Peek(4)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("read a layer: %w", err)
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		return gzip.NewReader(buffered)
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}), len(magic) == 4 && magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:], []byte{0x2a, 0x4d, 0x18}):
		return zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
	}
	return buffered, nil
}

// errTooMuch is that the layers are more than the limit.
var errTooMuch = errors.New("unpacked, the image is larger than this host allows (oci_image_max)")

// boundedReader ends with an error, not quietly, when there is more than may be.
type boundedReader struct {
	from io.Reader
	left uint64
	over bool
}

func (b *boundedReader) Read(p []byte) (int, error) {
	n, err := b.from.Read(p)
	if uint64(n) > b.left {
		b.over = true
		return 0, errTooMuch
	}
	b.left -= uint64(n)
	return n, err
}

// orWhy is the error, or that there is too much, if that is behind it.
func (b *boundedReader) orWhy(err error) error {
	if b.over {
		return errTooMuch
	}
	return err
}
