package kernel_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/narrow-ml/narrow/internal/kernel"
	"github.com/narrow-ml/narrow/internal/qtest"
)

// Tolerances of the golden vectors' README: float64 results of PyTorch.
const rtol, atol = 1e-4, 1e-5

// nhwc turns [N,C,spatial...] into [N,spatial...,C]; nchw is its inverse.
func nhwc(x []float32, n, c, pixels int) []float32 {
	y := make([]float32, len(x))
	for i := range n {
		for j := range c {
			for p := range pixels {
				y[(i*pixels+p)*c+j] = x[(i*c+j)*pixels+p]
			}
		}
	}
	return y
}

func nchw(x []float32, n, c, pixels int) []float32 { return nhwc(x, n, pixels, c) }

// firstError returns the first of errs that is not nil.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// pair reads a parameter that is a number or a list of two.
func pair(c qtest.Case, name string) (h, w int) {
	if l, ok := c.Params[name].([]any); ok && len(l) == 2 {
		a, _ := l[0].(float64)
		b, _ := l[1].(float64)
		return int(a), int(b)
	}
	v := c.Int(name, 0)
	return v, v
}

func checkConv(c qtest.Case) error {
	x, w, y := c.Inputs["x"], c.Inputs["weight"], c.Outputs["y"]
	g := kernel.ConvGeom{Groups: c.Int("groups", 1), Cin: x.Shape[1], Cout: w.Shape[0]}
	sh, sw := pair(c, "stride")
	ph, pw := pair(c, "padding")
	dh, dw := pair(c, "dilation")
	if len(x.Shape) == 3 { // one-dimensional
		sh, ph, dh = 1, 0, 1
		g.H, g.W, g.KH, g.KW = 1, x.Shape[2], 1, w.Shape[2]
	} else {
		g.H, g.W, g.KH, g.KW = x.Shape[2], x.Shape[3], w.Shape[2], w.Shape[3]
	}
	g.StrideH, g.StrideW, g.DilationH, g.DilationW = sh, sw, dh, dw
	g.PadTop, g.PadBottom, g.PadLeft, g.PadRight = ph, ph, pw, pw
	if err := g.Check(); err != nil {
		return err
	}
	n, gi, taps, pixels := x.Shape[0], g.Cin/g.Groups, g.KH*g.KW, g.OutH()*g.OutW()
	// torch weights are [Cout, Cin/groups, KH, KW]
	hwio := func(w []float32) []float32 { return nhwc(nhwc(w, g.Cout, gi, taps), 1, g.Cout, taps*gi) }
	oihw := func(w []float32) []float32 { return nchw(nchw(w, 1, g.Cout, taps*gi), g.Cout, gi, taps) }

	xs, ws := nhwc(x.F32(), n, g.Cin, g.H*g.W), hwio(w.F32())
	var bias []float32
	if b, ok := c.Inputs["bias"]; ok {
		bias = b.F32()
	}
	var s kernel.Scratch
	out := make([]float32, n*pixels*g.Cout)
	kernel.ConvForward(out, xs, ws, bias, n, g, &s)
	dy := nhwc(c.Upstream["y"].F32(), n, g.Cout, pixels)
	dx, dwt, db := make([]float32, len(xs)), make([]float32, len(ws)), make([]float64, g.Cout)
	kernel.ConvBackwardInput(dx, dy, ws, n, g, &s)
	part := make([]float32, kernel.FlippedSize(g))
	kernel.ConvBackwardWeight(part, xs, dy, n, g, false, &s)
	kernel.JoinWeightParts(dwt, [][]float32{part}, g, 0, gi*g.Cout, &s)
	kernel.SumColumns(db, dy, g.Cout)
	err := firstError(
		qtest.Close("y", nchw(out, n, g.Cout, pixels), y.Data, rtol, atol),
		qtest.Close("dx", nchw(dx, n, g.Cin, g.H*g.W), c.Grads["x"].Data, rtol, atol),
		qtest.Close("dw", oihw(dwt), c.Grads["weight"].Data, rtol, atol),
	)
	if want, ok := c.Grads["bias"]; ok && err == nil {
		err = qtest.Close("db", round32(db), want.Data, rtol, atol)
	}
	return err
}

func round32(x []float64) []float32 {
	y := make([]float32, len(x))
	kernel.Round32(y, x)
	return y
}

func TestTorchConv(t *testing.T) {
	qtest.Conform(t, "conv1d", nil, checkConv)
	qtest.Conform(t, "conv2d", nil, checkConv)
}

func TestTorchLinear(t *testing.T) {
	qtest.Conform(t, "linear", nil, func(c qtest.Case) error {
		x, w := c.Inputs["x"], c.Inputs["weight"] // w is [Out, In]
		in, out := w.Shape[1], w.Shape[0]
		m := len(x.Data) / in
		xs, ws, dy := x.F32(), w.F32(), c.Upstream["y"].F32()
		var s kernel.Scratch
		y, dx, dw, db := make([]float32, m*out), make([]float32, m*in), make([]float32, out*in), make([]float64, out)
		kernel.Gemm(y, out, xs, in, false, ws, in, true, m, out, in, false, &s)
		if b, ok := c.Inputs["bias"]; ok {
			kernel.AddBias(y, y, b.F32(), out)
		}
		kernel.Gemm(dx, in, dy, out, false, ws, in, false, m, in, out, false, &s)
		kernel.Gemm(dw, in, dy, out, true, xs, in, false, out, in, m, false, &s)
		kernel.SumColumns(db, dy, out)
		err := firstError(
			qtest.Close("y", y, c.Outputs["y"].Data, rtol, atol),
			qtest.Close("dx", dx, c.Grads["x"].Data, rtol, atol),
			qtest.Close("dw", dw, c.Grads["weight"].Data, rtol, atol))
		if want, ok := c.Grads["bias"]; ok && err == nil {
			err = qtest.Close("db", round32(db), want.Data, rtol, atol)
		}
		return err
	})
}

func TestTorchMaxPool(t *testing.T) {
	qtest.Conform(t, "max_pool2d", nil, func(c qtest.Case) error {
		x, y := c.Inputs["x"], c.Outputs["y"]
		n, ch := x.Shape[0], x.Shape[1]
		k, stride, pad := c.Int("kernel", 0), c.Int("stride", 0), c.Int("padding", 0)
		g := kernel.PoolGeom{H: x.Shape[2], W: x.Shape[3], C: ch, KH: k, KW: k, StrideH: stride, StrideW: stride,
			PadTop: pad, PadLeft: pad}
		// ceil mode is the extra padding that the output's shape asks for
		g.PadBottom = max(0, (y.Shape[2]-1)*stride+k-g.H-pad)
		g.PadRight = max(0, (y.Shape[3]-1)*stride+k-g.W-pad)
		if err := g.Check(); err != nil {
			return err
		}
		if g.OutH() != y.Shape[2] || g.OutW() != y.Shape[3] {
			return fmt.Errorf("output %dx%d, want %v", g.OutH(), g.OutW(), y.Shape)
		}
		pixels := g.OutH() * g.OutW()
		out, arg := make([]float32, n*pixels*ch), make([]uint8, n*pixels*ch)
		dx := make([]float32, len(x.Data))
		kernel.MaxPool(out, arg, nhwc(x.F32(), n, ch, g.H*g.W), n, g)
		kernel.MaxPoolGrad(dx, nhwc(c.Upstream["y"].F32(), n, ch, pixels), arg, n, g)
		return firstError(
			qtest.SameBits("y", nchw(out, n, ch, pixels), y.F32()),
			qtest.Close("dx", nchw(dx, n, ch, g.H*g.W), c.Grads["x"].Data, rtol, atol))
	})
}

func TestTorchBatchNorm(t *testing.T) {
	qtest.Conform(t, "batch_norm", nil, func(c qtest.Case) error {
		x := c.Inputs["x"]
		n, ch := x.Shape[0], x.Shape[1]
		pixels := len(x.Data) / n / ch
		nr := n * pixels
		xs, dy := nhwc(x.F32(), n, ch, pixels), nhwc(c.Upstream["y"].F32(), n, ch, pixels)
		gamma, beta := c.Inputs["weight"].F32(), c.Inputs["bias"].F32()
		runMean, runVar := c.Inputs["running_mean"].F32(), c.Inputs["running_var"].F32()
		eps := c.Float("eps", 0)
		mean, variance, inv := make([]float32, ch), make([]float32, ch), make([]float32, ch)
		training := c.Bool("training")
		if training {
			var all, image kernel.Moments
			all.Reset(ch)
			for i := range n {
				image.Reset(ch)
				image.Add(xs[i*pixels*ch : (i+1)*pixels*ch])
				all.Join(&image)
			}
			all.Stats(mean, variance, inv, eps)
			kernel.UpdateRunning(runMean, runVar, mean, variance, nr, c.Float("momentum", 0))
		} else {
			copy(mean, runMean)
			kernel.InvStd(inv, runVar, eps)
		}
		y, dx := make([]float32, len(xs)), make([]float32, len(xs))
		kernel.Normalize(y, xs, mean, inv, gamma, beta, ch)
		dgamma, dbeta := make([]float64, ch), make([]float64, ch)
		kernel.AddNormalizeGradSums(dgamma, dbeta, dy, nil, xs, mean, inv, ch)
		var p kernel.NormParams
		if training {
			p.SetGrad(mean, inv, gamma, dgamma, dbeta, nr)
		} else { // statistics are constants: dx = dy*gamma*invStd
			zero := make([]float64, ch)
			p.SetGrad(mean, inv, gamma, zero, zero, nr)
		}
		kernel.NormalizeGrad(dx, dy, nil, xs, &p)
		err := firstError(
			qtest.Close("y", nchw(y, n, ch, pixels), c.Outputs["y"].Data, rtol, atol),
			qtest.Close("dx", nchw(dx, n, ch, pixels), c.Grads["x"].Data, rtol, atol),
			qtest.Close("dgamma", round32(dgamma), c.Grads["weight"].Data, rtol, atol),
			qtest.Close("dbeta", round32(dbeta), c.Grads["bias"].Data, rtol, atol))
		if want, ok := c.Outputs["new_running_mean"]; ok && err == nil {
			err = firstError(
				qtest.Close("running mean", runMean, want.Data, rtol, atol),
				qtest.Close("running variance", runVar, c.Outputs["new_running_var"].Data, rtol, atol))
		}
		return err
	})
}

func TestTorchCrossEntropy(t *testing.T) {
	qtest.Conform(t, "cross_entropy", nil, func(c qtest.Case) error {
		x, target := c.Inputs["x"], c.Inputs["target"].I32()
		classes := x.Shape[1]
		ignore := int32(c.Int("ignore_index", -100))
		for i, l := range target {
			if l == ignore {
				target[i] = kernel.IgnoreLabel
			}
		}
		opt := kernel.CrossEntropy{Smoothing: c.Float("label_smoothing", 0), Reduction: kernel.Sum}
		if c.Str("reduction") == "mean" {
			opt.Reduction = kernel.Mean
		}
		if w, ok := c.Inputs["weight"]; ok {
			opt.Weights = w.F32()
		}
		xs := x.F32()
		grad, per := make([]float32, len(xs)), make([]float32, len(target))
		loss, err := kernel.SoftmaxCrossEntropy(grad, per, xs, target, classes, opt)
		if err != nil {
			return err
		}
		up := c.Upstream["y"].F32()
		for i := range grad { // "none" weighs each row's gradient by its upstream
			grad[i] *= up[min(i/classes, len(up)-1)]
		}
		got := []float32{float32(loss)}
		if c.Str("reduction") == "none" {
			got = per
		}
		return firstError(
			qtest.Close("loss", got, c.Outputs["y"].Data, rtol, atol),
			qtest.Close("gradient", grad, c.Grads["x"].Data, rtol, atol))
	})
}

// checkLoss compares an element-wise loss.
func checkLoss(f func(grad, x, t []float32, c qtest.Case) (float64, error), xName, tName string) func(qtest.Case) error {
	return func(c qtest.Case) error {
		x := c.Inputs[xName].F32()
		grad := make([]float32, len(x))
		loss, err := f(grad, x, c.Inputs[tName].F32(), c)
		if err != nil {
			return err
		}
		kernel.Scale(grad, grad, c.Upstream["y"].F32()[0])
		return firstError(
			qtest.Close("loss", []float32{float32(loss)}, c.Outputs["y"].Data, rtol, atol),
			qtest.Close("gradient", grad, c.Grads[xName].Data, rtol, atol))
	}
}

func TestTorchLosses(t *testing.T) {
	qtest.Conform(t, "mse_loss", nil, checkLoss(func(g, x, t []float32, _ qtest.Case) (float64, error) {
		return kernel.MSELoss(g, x, t, kernel.Mean)
	}, "x", "target"))
	qtest.Conform(t, "smooth_l1_loss", nil, checkLoss(func(g, x, t []float32, c qtest.Case) (float64, error) {
		return kernel.SmoothL1Loss(g, x, t, c.Float("beta", 1), kernel.Mean)
	}, "x", "target"))
	qtest.Conform(t, "bce_with_logits", nil, checkLoss(func(g, x, t []float32, _ qtest.Case) (float64, error) {
		return kernel.BCEWithLogits(g, x, t, kernel.Mean)
	}, "x", "target"))
	qtest.Conform(t, "distillation_kl", nil, checkLoss(func(g, s, t []float32, c qtest.Case) (float64, error) {
		return kernel.DistillationKL(g, s, t, c.Inputs["student"].Shape[1], c.Float("temperature", 1))
	}, "student", "teacher"))
}

func TestTorchOptimizer(t *testing.T) {
	exceptions := qtest.Exceptions{}
	for _, c := range qtest.Cases(t, "optimizer") {
		if kind := c.Str("kind"); kind == "RMSprop" || kind == "Adagrad" {
			exceptions[c.Name] = kind + " is not one of Narrow's optimizers"
		}
	}
	if len(exceptions) != 16 {
		t.Errorf("%d cases of other optimizers, want 16", len(exceptions))
	}
	qtest.Conform(t, "optimizer", exceptions, func(c qtest.Case) error {
		p := c.Inputs["p0"].F32()
		a, b, d := make([]float32, len(p)), make([]float32, len(p)), make([]float32, len(p))
		for step := 1; ; step++ {
			g, ok := c.Inputs[fmt.Sprintf("g%d", step-1)]
			if !ok {
				return nil
			}
			switch kind := c.Str("kind"); kind {
			case "SGD":
				kernel.SGD(p, g.F32(), a, step, kernel.SGDConfig{LR: c.Float("lr", 0), Momentum: c.Float("momentum", 0),
					Dampening: c.Float("dampening", 0), WeightDecay: c.Float("weight_decay", 0), Nesterov: c.Bool("nesterov")})
			case "Adam", "AdamW":
				cfg := kernel.AdamConfig{LR: c.Float("lr", 0), Beta1: 0.9, Beta2: 0.999, Eps: c.Float("eps", 1e-8),
					WeightDecay: c.Float("weight_decay", 0), Decoupled: kind == "AdamW", AMSGrad: c.Bool("amsgrad")}
				if _, given := c.Params["weight_decay"]; !given && cfg.Decoupled {
					cfg.WeightDecay = 0.01 // PyTorch's default for AdamW
				}
				if l, ok := c.Params["betas"].([]any); ok {
					cfg.Beta1, _ = l[0].(float64)
					cfg.Beta2, _ = l[1].(float64)
				}
				kernel.Adam(p, g.F32(), a, b, d, step, cfg)
			default:
				return fmt.Errorf("no kernel for %s", kind)
			}
			if err := qtest.Close(fmt.Sprintf("p%d", step), p, c.Outputs[fmt.Sprintf("p%d", step)].Data, 1e-5, 1e-7); err != nil {
				return err
			}
		}
	})
}

// nearTie reports x/s so close to a half, within 1e-4 or two float32 steps,
// that PyTorch's x*(1/s) may round to the other side.
func nearTie(x, s float64) bool {
	f := x / s
	return math.Abs(f-math.Floor(f)-0.5) < math.Max(1e-4, math.Abs(f)/(1<<22))
}

// fakeQuantLike compares y and dx of one scale and zero point on the elements
// that at selects from the case.
func fakeQuantLike(c qtest.Case, at []int, scale float32, zero int32) error {
	pick := func(t qtest.Tensor) []float32 {
		all, out := t.F32(), make([]float32, len(at))
		for i, j := range at {
			out[i] = all[j]
		}
		return out
	}
	x, wantY, wantDX := pick(c.Inputs["x"]), pick(c.Outputs["y"]), pick(c.Grads["x"])
	y, mask, dx := make([]float32, len(x)), make([]uint8, kernel.MaskLen(len(x))), make([]float32, len(x))
	if nan := kernel.FakeQuant(y, mask, x, scale, zero, int32(c.Int("quant_min", 0)), int32(c.Int("quant_max", 0))); nan >= 0 {
		return fmt.Errorf("NaN at %d", nan)
	}
	kernel.MaskGrad(dx, pick(c.Upstream["y"]), mask)
	for i := range x {
		if !c.Bool("pow2_scale") && nearTie(float64(x[i]), float64(scale)) {
			continue
		}
		if y[i] != wantY[i] || dx[i] != wantDX[i] {
			return fmt.Errorf("x=%v: y %v, dx %v; want %v, %v", x[i], y[i], dx[i], wantY[i], wantDX[i])
		}
	}
	return nil
}

// all returns 0..n-1.
func all(n int) []int {
	x := make([]int, n)
	for i := range x {
		x[i] = i
	}
	return x
}

func TestTorchFakeQuantize(t *testing.T) {
	qtest.Conform(t, "fake_quantize_per_tensor", nil, func(c qtest.Case) error {
		return fakeQuantLike(c, all(len(c.Inputs["x"].Data)), float32(c.Float("scale", 0)), int32(c.Int("zero_point", 0)))
	})
	qtest.Conform(t, "fake_quantize_per_channel", nil, func(c qtest.Case) error {
		shape, axis := c.Inputs["x"].Shape, c.Int("axis", 0)
		inner := 1
		for _, d := range shape[axis+1:] {
			inner *= d
		}
		for ch, s := range c.Inputs["scale"].F32() {
			var at []int
			for i := range c.Inputs["x"].Data {
				if i/inner%shape[axis] == ch {
					at = append(at, i)
				}
			}
			if err := fakeQuantLike(c, at, s, c.Inputs["zero_point"].I32()[ch]); err != nil {
				return fmt.Errorf("channel %d: %w", ch, err)
			}
		}
		return nil
	})
}

// The learned scale's gradient (D5). PyTorch's backward pass rounds the zero
// point as trunc(zp+0.5), which is not its forward's value for a fractional or
// a negative zp; such cases are skipped.
func TestTorchScaleGrad(t *testing.T) {
	compared := 0
	qtest.Conform(t, "fake_quantize_learnable_per_tensor", nil, func(c qtest.Case) error {
		scale, zp := c.Inputs["scale"].F32()[0], c.Inputs["zero_point"].Data[0]
		zero := int32(math.RoundToEven(zp))
		if zp < 0 || zp != math.Trunc(zp) {
			return nil
		}
		for _, x := range c.Inputs["x"].Data {
			if nearTie(x, float64(scale)) {
				return nil
			}
		}
		compared++
		lo, hi := int32(c.Int("quant_min", 0)), int32(c.Int("quant_max", 0))
		zero = min(max(zero, lo), hi)
		got := kernel.ScaleGrad(c.Upstream["y"].F32(), c.Inputs["x"].F32(), scale, lo-zero, hi-zero) * c.Float("grad_factor", 1)
		return qtest.Close("ds", []float32{float32(got)}, c.Grads["scale"].Data, 1e-4, 1e-5)
	})
	if compared < 10 {
		t.Errorf("only %d cases compared", compared)
	}
	t.Logf("%d cases compared", compared)
}
