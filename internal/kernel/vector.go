package kernel

// The assembly of element-wise kernels takes sixteen elements at a time, with
// per-channel arguments as streams that repeat. Each method *Vec below does a
// leading multiple of sixteen elements (or channels) and returns how many;
// zero means that the tier has no such kernel or that the shape does not suit
// it. The plain Go loop does the rest.

// vecLanes is the number of elements an assembly iteration takes.
const vecLanes = 16

// stretchLen is the longest stream that is written out for a number of
// channels that is not a multiple of vecLanes.
const stretchLen = 1024

// stretch returns v repeated to a multiple of vecLanes elements: v itself when
// it has one, else a copy in buf, else nil.
func stretch[T any](buf *[stretchLen]T, v []T) []T {
	if len(v)%vecLanes == 0 {
		return v
	}
	n := len(v)
	for n%vecLanes != 0 {
		n *= 2
	}
	if n > stretchLen {
		return nil
	}
	for i := 0; i < n; i += len(v) {
		copy(buf[i:], v)
	}
	return buf[:n]
}
