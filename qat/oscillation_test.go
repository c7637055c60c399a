package qat_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/narrow-ml/narrow/qat"
	"github.com/narrow-ml/narrow/quant"
)

func observe(t testing.TB, o *qat.Oscillation, freezeAbove float64, steps ...[]int8) {
	t.Helper()
	for _, codes := range steps {
		if err := o.Observe(codes, freezeAbove); err != nil {
			t.Fatal(err)
		}
	}
}

// arXiv:2203.11086, section 2.3: a change counts when it goes back, not when it goes on.
func TestOscillationFrequency(t *testing.T) {
	const m = qat.OscillationWeight
	for _, row := range []struct {
		name  string
		codes []int8
		want  float64 // frequency after the last step
	}{
		{"still", []int8{1, 1, 1, 1}, 0},
		{"one way", []int8{-1, 0, 1, 2}, 0},
		{"there and back", []int8{0, 1, 0}, m},
		{"back after a rest", []int8{0, 1, 1, 1, 0}, m},
		{"decays", []int8{0, 1, 0, 0, 0}, m * (1 - m) * (1 - m)},
		{"to and fro", []int8{0, 1, 0, 1, 0}, m * (1 + (1 - m) + (1-m)*(1-m))},
		{"jump over codes", []int8{3, -3, 3}, m},
	} {
		t.Run(row.name, func(t *testing.T) {
			o := qat.NewOscillation(1, quant.WeightSpec(quant.Int4))
			for _, q := range row.codes {
				observe(t, o, 0, []int8{q})
			}
			if got := float64(o.State()[2]); math.Abs(got-row.want) > 1e-8 {
				t.Errorf("frequency %v, want %v", got, row.want)
			}
			oscillating, frozen := o.Count()
			if want := row.want > qat.OscillationLimit; (oscillating == 1) != want || frozen != 0 {
				t.Errorf("counts %d oscillating, %d frozen", oscillating, frozen)
			}
		})
	}
}

// A weight that is at 2 most of the time and visits 1 freezes at 2; its master stays on the code whatever training does.
func TestOscillationFreezes(t *testing.T) {
	o := qat.NewOscillation(2, quant.WeightSpec(quant.Int4))
	for range 60 {
		observe(t, o, 0.02, []int8{2, 0}, []int8{2, 0}, []int8{2, 0}, []int8{1, 0})
	}
	if _, frozen := o.Count(); frozen != 1 {
		t.Fatalf("%d frozen, want the first weight alone", frozen)
	}
	master := []float32{-7, -7}
	o.Hold(master, []float32{0.5, 0.25})
	if !slices.Equal(master, []float32{1, -7}) {
		t.Errorf("masters %v, want the first at 0.5*2", master)
	}
	observe(t, o, 0.02, []int8{-2, 3})
	o.Hold(master, []float32{0.125})
	if master[0] != 0.25 {
		t.Errorf("master %v, want 0.125*2: a frozen code does not move", master[0])
	}
}

// With even levels a weight freezes on a level, not between two.
func TestOscillationFreezesOnEvenLevels(t *testing.T) {
	spec := quant.WeightSpec(quant.Int2)
	spec.Even = true
	o := qat.NewOscillation(1, spec)
	for range 30 {
		observe(t, o, 0.02, []int8{-3}, []int8{-1}, []int8{-1}, []int8{-3}) // -2 on average
	}
	master := []float32{0}
	o.Hold(master, []float32{1})
	if _, frozen := o.Count(); frozen != 1 || master[0] != -1 && master[0] != -3 {
		t.Errorf("%d frozen, at %v", frozen, master[0])
	}
}

func TestOscillationStateResumes(t *testing.T) {
	steps := func(o *qat.Oscillation, from, to int) {
		for k := from; k < to; k++ {
			observe(t, o, 0.03, []int8{int8(k % 2), int8(k / 3 % 2), 5, int8(k % 4)})
		}
	}
	whole, first, second := qat.NewOscillation(4, quant.WeightSpec(quant.Int4)), qat.NewOscillation(4, quant.WeightSpec(quant.Int4)), qat.NewOscillation(4, quant.WeightSpec(quant.Int4))
	steps(whole, 0, 40)
	steps(first, 0, 17)
	if err := second.Restore(first.State()); err != nil {
		t.Fatal(err)
	}
	steps(second, 17, 40)
	if !slices.Equal(whole.State(), second.State()) {
		t.Errorf("state %v, uninterrupted %v", second.State(), whole.State())
	}
	if err := second.Restore(nil); err != nil || len(second.State()) != 0 {
		t.Errorf("the state before the first step: %v, %v", second.State(), err)
	}
	for _, bad := range [][]float32{{1}, {300, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, slices.Repeat([]float32{float32(math.NaN())}, 20)} {
		if err := second.Restore(bad); err == nil {
			t.Errorf("state %v was taken", bad)
		}
	}
	if err := whole.Observe(make([]int8, 3), 0); err == nil {
		t.Error("three codes for four weights were taken")
	}
}

// The gradient of the damping loss by finite differences: codes are constants, weights outside the grid are left alone.
func TestDampGradient(t *testing.T) {
	master := []float32{0.3, -0.3, 0.9, 2.5, -2.5, 0}
	codes := []int8{0, -1, 2, 3, -3, 0}
	scale := []float32{0.5, 0.75}
	const lo, hi, strength = -3, 3, 0.125
	cost := func(w []float64) float64 {
		sum := 0.0
		for i, v := range w {
			s := float64(scale[i%2])
			v = max(s*lo, min(s*hi, v))
			if float64(master[i]) < s*lo || float64(master[i]) > s*hi {
				continue
			}
			d := v - s*float64(codes[i])
			sum += strength * d * d
		}
		return sum
	}
	grad := []float32{1, 1, 1, 1, 1, 1}
	qat.Damp(grad, master, codes, scale, lo, hi, strength)
	at := make([]float64, len(master))
	for i, v := range master {
		at[i] = float64(v)
	}
	for i := range at {
		const h = 1e-4
		at[i] += h
		up := cost(at)
		at[i] -= 2 * h
		down := cost(at)
		at[i] += h
		if want := 1 + (up-down)/(2*h); math.Abs(float64(grad[i])-want) > 1e-6 {
			t.Errorf("weight %d: gradient %v, finite difference %v", i, grad[i], want)
		}
	}
	if grad[3] != 1 || grad[4] != 1 {
		t.Errorf("gradients %v, %v outside the grid, want those of the loss alone", grad[3], grad[4])
	}
}

func ExampleOscillation() {
	o := qat.NewOscillation(3, quant.WeightSpec(quant.Int4))
	for step := range 100 {
		codes := []int8{4, int8(step % 2), int8(step / 50)} // still, to and fro, one step up
		if err := o.Observe(codes, 0); err != nil {
			fmt.Println(err)
		}
	}
	oscillating, frozen := o.Count()
	fmt.Println(oscillating, "oscillates,", frozen, "frozen")
	// Output: 1 oscillates, 0 frozen
}
