//go:build !cgo

package main

// loadORT needs cgo.
func loadORT(Spec) (runner, Ready, error) {
	return nil, Ready{}, &Missing{Reason: "this program was built without cgo, which ONNX Runtime's C API needs", Install: "apt-get install gcc, and build with CGO_ENABLED=1"}
}
