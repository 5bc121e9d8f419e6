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

// maxWindow bounds the window of a zstd layer, which is in memory, in bytes. It is the largest one that zstd(1) makes
// without --long.
const maxWindow = 128 << 20

// decompress finds out how a layer is compressed from its first bytes. The media type in a manifest is often wrong.
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

// errTooMuch is the error if the layers exceed the limit.
var errTooMuch = errors.New("unpacked, the image is larger than this host allows (oci_image_max)")

// boundedReader fails when more than a number of bytes is read.
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

// orWhy returns errTooMuch if the limit was exceeded, else err.
func (b *boundedReader) orWhy(err error) error {
	if b.over {
		return errTooMuch
	}
	return err
}
