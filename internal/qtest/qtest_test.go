package qtest_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/internal/qtest"
)

func TestNumbersReadsNonFinite(t *testing.T) {
	var n qtest.Numbers
	if err := json.Unmarshal([]byte(`[1.5,"NaN","Infinity","-Infinity",true]`), &n); err != nil {
		t.Fatal(err)
	}
	if n[0] != 1.5 || !math.IsNaN(n[1]) || !math.IsInf(n[2], 1) || !math.IsInf(n[3], -1) || n[4] != 1 {
		t.Errorf("got %v", n)
	}
	if err := json.Unmarshal([]byte(`["nan"]`), &n); err == nil {
		t.Error("a misspelt NaN was accepted")
	}
}

func TestCasesLoad(t *testing.T) {
	cs := qtest.Cases(t, "optimizer")
	if len(cs) != 68 {
		t.Errorf("optimizer has %d cases, want 68", len(cs))
	}
	if got := cs[1].Float("momentum", 0); got != 0.9 {
		t.Errorf("momentum of %s = %v, want 0.9", cs[1].Name, got)
	}
}

func TestGuardedSeesStoresOutside(t *testing.T) {
	for _, n := range []int{0, 1, 5, 16, 33} {
		for shift := range 17 {
			g := qtest.Guarded[float32](n, shift)
			if err := g.Check(); err != nil || len(g.Data) != n || cap(g.Data) != n {
				t.Fatalf("n=%d shift=%d: fresh guard: len %d cap %d, %v", n, shift, len(g.Data), cap(g.Data), err)
			}
			for i := range g.Data {
				g.Data[i] = 1
			}
			if err := g.Check(); err != nil {
				t.Errorf("n=%d shift=%d: store inside reported: %v", n, shift, err)
			}
		}
	}
}

func TestCloseFindsTheWorst(t *testing.T) {
	nan := math.NaN()
	if err := qtest.Close("y", []float32{1, float32(nan)}, []float64{1.00001, nan}, 1e-4, 0); err != nil {
		t.Error(err)
	}
	err := qtest.Close("y", []float32{1, 2, 3}, []float64{1, 2.1, 4}, 1e-4, 0)
	if err == nil || !strings.HasPrefix(err.Error(), "y[2] = 3, want 4") {
		t.Errorf("got %v", err)
	}
	if qtest.Close("y", []float32{float32(nan)}, []float64{1}, 1, 1) == nil {
		t.Error("NaN equals 1")
	}
}

// The derivative of x*x is 2x.
func ExampleGradCheck() {
	square := func(x []float64) float64 { return x[0] * x[0] }
	fmt.Println(qtest.GradCheck(square, []float64{3}, []float64{6}, 1e-5, 1e-6))
	fmt.Println(qtest.GradCheck(square, []float64{3}, []float64{5}, 1e-5, 1e-6) != nil)
	// Output:
	// <nil>
	// true
}
