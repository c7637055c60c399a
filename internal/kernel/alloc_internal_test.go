package kernel

import "testing"

// Kernels of a training step allocate nothing once their scratch has grown.
func TestKernelsDoNotAllocate(t *testing.T) {
	const channels = 20
	g := ConvGeom{H: 9, W: 9, Cin: channels, KH: 3, KW: 3, Cout: channels, StrideH: 1, StrideW: 1,
		PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1, Groups: 1}
	even := g
	even.H, even.W, even.Cin, even.Cout = 8, 8, 16, 16
	first, depthwise := g, g
	first.Cin = 1
	depthwise.Groups = channels
	grouped := g
	grouped.Groups = 4
	points := grouped
	points.KH, points.KW, points.PadTop, points.PadLeft, points.PadBottom, points.PadRight = 1, 1, 0, 0, 0, 0
	fewer := points
	fewer.Groups = 10
	pg := PoolGeom{H: 9, W: 9, C: channels, KH: 3, KW: 3, StrideH: 2, StrideW: 2}
	n := g.inSize()
	x, y, z, v := make([]float32, n), make([]float32, n), make([]float32, n), make([]float32, n)
	w, q, s8, acc := make([]float32, g.weightSize()), make([]uint8, n), make([]int8, g.weightSize()), make([]int32, n)
	arg, mask, m, bias := make([]uint8, n), make([]uint8, n), make([]float32, channels), make([]int32, channels)
	sums := make([]float64, channels)
	fill(m, 0.01)
	var norm, grad NormParams
	norm.Set(m, m, m, m)
	grad.SetGrad(m, m, m, sums, sums, 10)
	act := NormAct{Norm: &norm, ReLU: true, Cap: 0.5}
	eachTier(t, func(t *testing.T, kern *isa) {
		var s Scratch
		part := make([]float32, max(kern.flippedSize(g), kern.flippedSize(even)))
		parts := [][]float32{part, part}
		var p, p1, pd, p4, pp, pf, pw PackedS8
		kern.packConv(&p4, s8[:grouped.weightSize()], grouped, &s)
		kern.packConv(&pp, s8[:points.weightSize()], points, &s)
		kern.packConv(&pf, s8[:fewer.weightSize()], fewer, &s)
		kern.packS8(&pw, s8[:grouped.weightSize()], grouped.Depth(), channels)
		kern.packS8(&p1, s8[:first.weightSize()], first.Depth(), channels)
		kern.packS8(&pd, s8[:depthwise.weightSize()], depthwise.Depth(), channels)
		for name, f := range map[string]func(){
			"pack":               func() { kern.packS8(&p, s8, g.Depth(), channels) },
			"forward":            func() { kern.convForward(y, x, w, m, 1, g, &s) },
			"dx":                 func() { kern.convBackwardInput(x, y, w, 1, g, &s) },
			"dw":                 func() { kern.convBackwardWeight(part, x, y, 1, g, false, &s) },
			"join dw":            func() { kern.joinWeightParts(w, parts, g, 0, g.Cin*g.Cout, &s) },
			"depthwise":          func() { kern.convForward(y, x, w, nil, 1, depthwise, &s) },
			"u8 first":           func() { kern.convU8S8(acc, q, 3, &p1, 1, first, &s) },
			"u8 depthwise":       func() { kern.convU8S8Requant(q, q, 3, &pd, bias, m, 0, 0, 255, 1, depthwise, &s) },
			"even dx":            func() { kern.convBackwardInput(x, y, w, 1, even, &s) },
			"even dw":            func() { kern.convBackwardWeight(part, x, y, 1, even, false, &s) },
			"even join":          func() { kern.joinWeightParts(w, parts, even, 0, even.Cin*even.Cout, &s) },
			"groups":             func() { kern.convForward(y, x, w, m, 1, grouped, &s) },
			"groups dx":          func() { kern.convBackwardInput(x, y, w, 1, grouped, &s) },
			"groups dw":          func() { kern.convBackwardWeight(w, x, y, 1, grouped, false, &s) },
			"u8 groups":          func() { kern.convU8S8(acc, q, 3, &p4, 1, grouped, &s) },
			"u8 codes of groups": func() { kern.convU8S8Requant(q, q, 3, &p4, bias, m, 0, 0, 255, 1, grouped, &s) },
			"u8 groups 1x1":      func() { kern.convU8S8Requant(q, q, 3, &pp, bias, m, 0, 0, 255, 1, points, &s) },
			"u8 groups of 2":     func() { kern.convU8S8Requant(q, q, 3, &pf, bias, m, 0, 0, 255, 1, fewer, &s) },
			"pack groups":        func() { kern.packConv(&p4, s8[:grouped.weightSize()], grouped, &s) },
			"u8 groups, packed as a matrix": func() {
				kern.convU8S8(acc, q, 3, &pw, 1, grouped, &s)
			},
			"requant train":  func() { kern.requantTrain(q, mask, acc, bias, m, 0, 0, 255, true, channels) },
			"fake-quant":     func() { kern.fakeQuant(y, mask, x, 0.1, 0, 0, 255) },
			"quantize u8":    func() { kern.quantizeU8(q, nil, x, 0.1, 0, 0, 255) },
			"quantize s8":    func() { kern.quantizeS8(s8[:n], nil, x, m, -127, 127) },
			"max-pool":       func() { kern.maxPoolF32(y, arg, x, 1, pg) },
			"max-pool u8":    func() { kern.maxPoolU8(q, arg, arg, 1, pg) },
			"scale by codes": func() { kern.addScaleGradCodes(sums, x, y, m, s8[:n], mask, &s) },
			"columns":        func() { kern.columnSums(sums, termSum, &columnArgs{x: x}, channels) },
			"normalize":      func() { kern.normalize(y, x, m, m, m, m, channels) },
			"set norm":       func() { grad.SetGrad(m, m, m, sums, sums, 10) },
			"normalize grad": func() { kern.normalizeGrad(y, x, mask, x, &grad) },
			"norm sums":      func() { kern.normSums(sums, sums, x, mask, y, m, m, channels) },
			"norm values":    func() { kern.normValues(&act, y, mask, x) },
			"norm quantize":  func() { kern.normQuantize(&act, q, mask, x, 0.1, 0, 0, 255) },
			"scale by sums":  func() { kern.scaleGradRows(x, acc, bias, m, q, mask, 0) },
			"norm scale":     func() { kern.normScaleGrad(&act, y, mask, x, q, mask, 0.1, 0, 0, 255) },
			"depthwise dx":   func() { kern.convBackwardInput(x, y, w, 1, depthwise, &s) },
			"depthwise dw":   func() { kern.convBackwardWeight(w, x, y, 1, depthwise, false, &s) },
			"add train": func() {
				kern.addRequantTrain(q, mask, Term{q, 3, 0.1}, Term{arg, 5, 0.2}, 0, 0, 255, true)
			},
			"adam":    func() { kern.adam(x, y, z, v, nil, 3, AdamConfig{LR: 0.1, Beta1: 0.9, Beta2: 0.99, Eps: 1e-8}) },
			"min max": func() { kern.minMax(x) },
		} {
			f()
			if a := testing.AllocsPerRun(5, f); a != 0 {
				t.Errorf("%s: %v allocations per call", name, a)
			}
		}
	})
}
