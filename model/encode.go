package model

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"math"
)

// A model file is prefix, header, blobs, checksum; docs/format.md specifies it byte by byte.
const (
	fileMagic     = "\x89NARROW\n" // not text: a transfer that changes line ends or clears the top bit shows at once
	fileVersion   = 1
	prefixBytes   = 24          // magic, version u32, header length u32, file length u64
	blobAlign     = 16          // of every blob, counted from the start of the file
	maxHeader     = 1 << 20     // bounds what a damaged length can make a reader allocate
	checksumBytes = sha256.Size // SHA-256 of everything before it
	maxFile       = math.MaxInt32
)

func align(n int) int { return (n + blobAlign - 1) / blobAlign * blobAlign }

// Encode writes a Frozen model as a model file (model.narrow). The bytes depend on the model alone: no clock, no path, no
// machine; Node.Origin is left out. Weight codes take their true width, 2 to 8 bits each.
func Encode(w io.Writer, m *Model) error {
	if err := Validate(m); err != nil {
		return fmt.Errorf("encode model: %w", err)
	}
	if err := encode(w, m); err != nil {
		return fmt.Errorf("encode model %q: %w", m.Name, err)
	}
	return nil
}

// encode writes a model that Validate accepts.
func encode(w io.Writer, m *Model) error {
	h, blobs := newHeader(m)
	text, err := h.marshal()
	if err != nil {
		return err
	}
	if len(text) > maxHeader {
		return fmt.Errorf("the header has %d bytes, the format allows %d: use shorter names or fewer layers and labels", len(text), maxHeader)
	}
	start := align(prefixBytes + len(text))
	f := &fileWriter{w: w, sum: sha256.New()}
	prefix := make([]byte, 0, prefixBytes)
	prefix = append(prefix, fileMagic...)
	prefix = binary.LittleEndian.AppendUint32(prefix, fileVersion)
	prefix = binary.LittleEndian.AppendUint32(prefix, uint32(len(text)))
	prefix = binary.LittleEndian.AppendUint64(prefix, uint64(start+h.blobBytes+checksumBytes))
	f.write(prefix)
	f.write(text)
	for i := range blobs {
		f.padTo(start + blobs[i].Offset)
		f.write(blobs[i].appendTo(nil))
	}
	f.padTo(start + h.blobBytes) // pads only when there are no blobs
	f.write(f.sum.Sum(nil))
	return f.err
}

// appendTo appends the bytes of the blob's elements.
func (b *blob) appendTo(dst []byte) []byte {
	switch {
	case b.payload.Codes != nil:
		packed := make([]byte, b.bytes())
		packCodes(packed, toLevels(b.payload.Codes, b.Type), blobBits(b.Type))
		return append(dst, packed...)
	case b.payload.Codes16 != nil:
		for _, v := range b.payload.Codes16 {
			dst = binary.LittleEndian.AppendUint16(dst, uint16(v))
		}
	case b.payload.Half != nil:
		for _, v := range b.payload.Half {
			dst = binary.LittleEndian.AppendUint16(dst, v)
		}
	case b.payload.Int32 != nil:
		for _, v := range b.payload.Int32 {
			dst = binary.LittleEndian.AppendUint32(dst, uint32(v))
		}
	default:
		for _, v := range b.payload.Data {
			dst = binary.LittleEndian.AppendUint32(dst, math.Float32bits(v))
		}
	}
	return dst
}

// fileWriter counts and hashes what it writes and keeps the first error.
type fileWriter struct {
	w   io.Writer
	sum hash.Hash
	at  int
	err error
}

func (f *fileWriter) write(p []byte) {
	if f.err != nil {
		return
	}
	f.sum.Write(p) // a hash never fails
	_, f.err = f.w.Write(p)
	f.at += len(p)
}

// padTo writes zero bytes up to an offset.
func (f *fileWriter) padTo(offset int) { f.write(make([]byte, max(0, offset-f.at))) }
