package ptq

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/internal/par"
	"github.com/narrow-ml/narrow/internal/rng"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
)

// every is a random net with every kind of layer that is rounded: strides, uneven padding, groups, depthwise, dense, with
// batch norm, bias and neither.
func every(t *testing.T) (*model.Model, *datasets.Set) {
	t.Helper()
	m := model.New("every", model.Input{Name: "x", Shape: model.Shape{7, 6, 2}, Scale: 1.0 / 64, Zero: 100})
	conv := func(layer string, kernel, stride, groups, units int, bias, norm, relu bool) {
		m.Append(model.Node{Name: layer + "/conv", Layer: layer, Op: model.Conv, Attr: model.Attr{
			Kernel: [2]int{kernel, kernel}, Stride: [2]int{stride, 1}, Pad: [4]int{kernel / 2, 0, kernel / 2, kernel / 2}, Groups: groups, Units: units, Bias: bias}})
		if norm {
			m.Append(model.Node{Name: layer + "/norm", Layer: layer, Op: model.BatchNorm, Attr: model.Attr{Eps: 1e-3, Momentum: 0.1}})
		}
		if relu {
			m.Append(model.Node{Name: layer, Layer: layer, Op: model.ReLU})
		}
	}
	conv("c1", 3, 2, 1, 6, false, true, true)
	conv("dw", 3, 1, 6, 6, true, true, true)
	conv("g3", 1, 1, 3, 9, true, false, false)
	m.Append(model.Node{Name: "flat", Layer: "flat", Op: model.Flatten})
	m.Append(model.Node{Name: "fc1/dense", Layer: "fc1", Op: model.Dense, Attr: model.Attr{Units: 12, Bias: true}})
	m.Append(model.Node{Name: "fc1", Layer: "fc1", Op: model.ReLU})
	m.Append(model.Node{Name: "fc2", Layer: "fc2", Op: model.Dense, Attr: model.Attr{Units: 3}})
	m, err := model.Shapes(m)
	if err != nil {
		t.Fatal(err)
	}
	if m, err = model.Fuse(m); err != nil {
		t.Fatal(err)
	}
	s := rng.New(5, rng.Test)
	for _, name := range m.ParamNames() {
		for i := range m.Params[name].Data {
			v := float32(s.Norm())
			switch {
			case strings.HasSuffix(name, ".weight"):
				v *= 0.4
			case strings.HasSuffix(name, ".var"):
				v = 0.2 + v*v
			}
			m.Params[name].Data[i] = v
		}
	}
	set := &datasets.Set{Shape: []int{7, 6, 2}, X: make([]uint8, 96*84), Labels: make([]int32, 96)}
	for i := range set.X {
		set.X[i] = uint8(s.IntN(256))
	}
	return m, set
}

// TestFitIsTheLayer: with the masters as weights and the float model on both sides nothing is left to fit. It holds the
// patches, the groups and the affine map to the engine's layers.
func TestFitIsTheLayer(t *testing.T) {
	m, set := every(t)
	o, err := Options{Batch: 7, Workers: 2, Seed: 1}.resolve()
	if err != nil {
		t.Fatal(err)
	}
	pool := par.New(2)
	defer pool.Close()
	for _, i := range weighted(m) {
		n := &m.Nodes[i]
		rows, err := fitRows(t.Context(), m, m, i, set, o)
		if err != nil {
			t.Fatal(err)
		}
		affine, err := m.Affine(n)
		if err != nil {
			t.Fatal(err)
		}
		f := newFit(rows, affine, n.Attr, pool)
		weight := m.Params[n.Param(model.Weight)].Data
		got, err := f.errors(weight)
		if err != nil {
			t.Fatal(err)
		}
		power := 0.0
		for _, y := range rows.y {
			power += float64(y) * float64(y) / float64(rows.n)
		}
		for c, e := range got {
			if !(e <= 1e-10*power) {
				t.Errorf("%s channel %d: mean square error %v of outputs with power %v", n.Layer, c, e, power)
			}
		}
		// The gradient, by central differences over every fifth weight.
		v, dv, dw := make([]float32, rows.n*f.units), make([]float32, rows.n*f.units), make([]float32, len(weight))
		loss := func() (sum float64) {
			if err := f.forward(v, weight, 0, rows.n); err != nil {
				t.Fatal(err)
			}
			f.residual(v, dv, 0, rows.n)
			for _, e := range v {
				sum += float64(e) * float64(e) / 2
			}
			return sum
		}
		for j := range rows.y {
			rows.y[j] -= 1 // away from the minimum
		}
		loss()
		if err := f.backward(dw, dv, 0, rows.n); err != nil {
			t.Fatal(err)
		}
		for j := 0; j < len(weight); j += 5 {
			const h = 1.0 / 256
			was, want := weight[j], float64(dw[j])
			weight[j] = was + h
			up := loss()
			weight[j] = was - h
			got := (up - loss()) / (2 * h)
			weight[j] = was
			if math.Abs(got-want) > 0.02*math.Abs(want)+0.02*float64(rows.n)/10 {
				t.Errorf("%s: derivative to weight %d is %v, differences give %v", n.Layer, j, want, got)
			}
		}
	}
}

// TestAnyCodesReachFreeze puts random codes into every layer and finds them again in the frozen model, up to the signs of
// batch norm.
func TestAnyCodesReachFreeze(t *testing.T) {
	m, set := every(t)
	for _, format := range []quant.Format{quant.Int8, quant.Int5, quant.Int4, quant.Int2} {
		for _, per := range []quant.Granularity{quant.PerChannel, quant.PerTensor} {
			q := model.DefaultQuant(quant.Precision{Weight: format, Act: quant.Int8})
			q.Weight.Per = per
			out, err := Calibrate(t.Context(), m, q, set, Options{Workers: 1})
			if err != nil {
				t.Fatal(err)
			}
			out = out.Clone()
			s := rng.New(uint64(format), rng.Test)
			want := map[string][]int8{}
			for _, i := range weighted(out) {
				n := &out.Nodes[i]
				g, err := newGrid(out, n, Options{Percentile: 99.99})
				if err != nil {
					t.Fatal(err)
				}
				codes := make([]int8, len(g.w))
				for j := range codes {
					codes[j] = int8(int32(s.IntN(int(g.hi-g.lo+1))) + g.lo)
				}
				if err := g.settle(out, n, codes); err != nil {
					t.Fatalf("%s %s/%s: %v", n.Layer, format, per, err)
				}
				want[n.Layer] = codes
			}
			frozen, err := model.Freeze(out)
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range weighted(out) {
				n := &out.Nodes[i]
				affine, err := out.Affine(n)
				if err != nil {
					t.Fatal(err)
				}
				for j, got := range frozen.Params[n.Param(model.Weight)].Codes {
					sign := int8(1)
					if affine.F != nil && affine.F[j%n.Attr.Units] < 0 {
						sign = -1
					}
					if got != sign*want[n.Layer][j] {
						t.Fatalf("%s %s/%s: weight %d is frozen as %d, chosen was %d", n.Layer, format, per, j, got, sign*want[n.Layer][j])
					}
				}
			}
		}
	}
}

// twins is a layer whose two inputs are always equal: only the sum of its two weights matters.
func twins(t *testing.T) (*grid, *fit) {
	t.Helper()
	r := &layerRows{window: window{h: 1, w: 1, c: 2, outW: 1, kh: 1, kw: 1, groups: 1, depth: 2, units: 1, outputs: 1, perGroup: 2}, n: 64}
	s := rng.New(1, rng.Test)
	for range r.n {
		x := float32(s.Norm())
		r.x = append(r.x, x, x)
		r.y = append(r.y, 0.85*x)
	}
	pool := par.New(1)
	t.Cleanup(pool.Close)
	g := &grid{coding: coding{codes: []int8{0, 0}, scale: []float32{1}, p: &quant.Params{}, units: 1}, w: []float32{0.4, 0.45}, fixed: []bool{false}, lo: -7, hi: 7}
	return g, newFit(r, model.Affine{B: []float64{0}}, model.Attr{Units: 1}, pool)
}

// TestTwins: 0.4 + 0.45 rounds to 0 + 0 by itself and must become 0 + 1 or 1 + 0.
func TestTwins(t *testing.T) {
	for _, r := range []Rounding{AdaRound, GPTQ} {
		g, f := twins(t)
		var codes []int8
		var err error
		if r == AdaRound {
			codes, err = adaRound(t.Context(), g, f, Options{Iterations: 300})
		} else {
			codes, err = feedBack(t.Context(), g, f)
		}
		if err != nil || codes[0]+codes[1] != 1 || codes[0]*codes[1] != 0 {
			t.Errorf("%s: codes %v, error %v, want one of them 1", r, codes, err)
		}
		var report LayerRounding
		if err := choose(g, f, codes, &report); err != nil || report.Moved != 1 || report.Kept != 0 || !(report.Error < report.Nearest/10) {
			t.Errorf("%s: report %+v, %v", r, report, err)
		}
		bad := []int8{7, 7}
		if err := choose(g, f, bad, &report); err != nil || !slices.Equal(bad, g.codes) {
			t.Errorf("%s: worse codes were kept: %v, %v", r, bad, err)
		}
	}
}

// TestInverseFactor checks H^-1 = U^T U, that is, U H U^T = 1 in the order of falling diagonal.
func TestInverseFactor(t *testing.T) {
	const n, rows = 13, 40
	x := normals(n*rows, 8)
	h := make([]float32, n*n)
	for i := range n {
		for j := range n {
			for r := range rows {
				h[i*n+j] += x[r*n+i] * x[r*n+j] * float32(1+i) * float32(1+j)
			}
		}
	}
	order, u, err := inverseFactor(h, n)
	if err != nil {
		t.Fatal(err)
	}
	mean := 0.0
	for i := range n {
		mean += float64(h[i*n+i]) / n
		if i > 0 && h[order[i]*n+order[i]] > h[order[i-1]*n+order[i-1]] {
			t.Errorf("order %v is not that of a falling diagonal", order)
		}
	}
	at := func(i, j int) float64 {
		v := float64(h[order[max(i, j)]*n+order[min(i, j)]])
		if i == j {
			v += damping * mean
		}
		return v
	}
	for a := range n {
		for b := range n {
			sum := 0.0
			for i := range n {
				for j := range n {
					sum += u[a*n+i] * at(i, j) * u[b*n+j]
				}
			}
			want := 0.0
			if a == b {
				want = 1
			}
			if math.Abs(sum-want) > 1e-4 {
				t.Errorf("U H U^T[%d,%d] = %v, want %v", a, b, sum, want)
			}
			if b < a && u[a*n+b] != 0 {
				t.Errorf("U[%d,%d] = %v below the diagonal", a, b, u[a*n+b])
			}
		}
	}
	if order, u, err := inverseFactor(make([]float32, 9), 3); err != nil || !slices.Equal(order, []int{0, 1, 2}) || u[0] != 1 || u[1] != 0 {
		t.Errorf("inputs that are always zero: %v %v %v", order, u, err)
	}
	h[0] = float32(math.NaN())
	if _, _, err := inverseFactor(h, n); err == nil || !strings.Contains(err.Error(), "not finite") {
		t.Errorf("NaN: %v", err)
	}
	h[0] = -h[n+1] * n
	if _, _, err := inverseFactor(h, n); err == nil || !strings.Contains(err.Error(), "adaround") {
		t.Errorf("indefinite: %v", err)
	}
}

// TestRegularizerSlope compares with central differences of lambda*(1 - |2h-1|^beta).
func TestRegularizerSlope(t *testing.T) {
	value := func(v float64, beta int) float64 {
		h := min(max(1.2/(1+math.Exp(-v))-0.1, 0), 1)
		return regularize * (1 - math.Pow(math.Abs(2*h-1), float64(beta)))
	}
	for _, beta := range []int{2, 3, 7, 20} {
		for v := -4.0; v <= 4; v += 0.37 {
			const step = 1e-4
			want := -(value(v+step, beta) - value(v-step, beta)) / (2 * step)
			if got := float64(regularizerSlope(float32(v), beta)); math.Abs(got-want) > 1e-3*(1+math.Abs(want)) {
				t.Errorf("beta %d, V %.2f: slope %v, differences give %v", beta, v, got, want)
			}
		}
	}
}
