package cpu_test

import (
	"fmt"

	"github.com/narrow-ml/narrow/internal/cpu"
)

func ExampleParse() {
	t, err := cpu.Parse("avx2")
	fmt.Println(t, t > cpu.Generic, err)
	_, err = cpu.Parse("sse9")
	fmt.Println(err)
	// Output:
	// avx2 true <nil>
	// unknown instruction tier "sse9" (allowed: generic, avx2, avx512vnni)
}
