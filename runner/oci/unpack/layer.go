package unpack

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// maxWindow bounds how far back a zstd layer may refer, which takes as much memory: the most
// that zstd(1) makes without --long.
const maxWindow = 128 << 20

// layer unpacks one, as it came from the registry.
func (t *tree) layer(compressed io.Reader, sum [32]byte) error {
	plain, err := decompress(compressed)
	if err != nil {
		return err
	}
	bounded := &boundedReader{from: plain, left: t.limits.Bytes - t.stream}
	hash := sha256.New()
	stream := io.TeeReader(bounded, hash)
	if err := t.apply(stream); err != nil {
		return bounded.orWhy(err)
	}
	// A tar may have more behind its end.
	if _, err := io.Copy(io.Discard, stream); err != nil {
		return bounded.orWhy(fmt.Errorf("read a layer: %w", err))
	}
	t.stream = t.limits.Bytes - bounded.left
	if got := [32]byte(hash.Sum(nil)); got != sum {
		return fmt.Errorf("a layer has the digest sha256:%x when it is decompressed, and the image says sha256:%x", got, sum)
	}
	// What follows the compressed data is not part of it.
	_, err = io.Copy(io.Discard, compressed)
	return err
}

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
