package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// A stream routine runs over n elements, n a multiple of 16, sixteen at a
// time: one zmm or two ymm. Per-channel arguments are streams of their own of
// period elements, a multiple of 16, that start again at their end.

// lanes is how many elements an iteration takes.
const lanes = 16

// halves is the number of registers of an iteration.
func (g *gen) halves() int { return lanes * 4 / g.bytes() }

// stream is the frame of a stream routine.
type stream struct {
	g       *gen
	n, o    reg.GPVirtual // elements left; byte offset in the period
	moving  []movingPointer
	fetched []reg.GPVirtual // see far
	times   int             // how many times sixteen elements an iteration takes: 1 but in the longest streams
	first   string          // argument: where in the period the first element is; none: 0
}

type movingPointer struct {
	r     reg.GPVirtual
	bytes int           // per iteration, or
	step  reg.GPVirtual // a register that holds it
}

func (g *gen) newStream() *stream { return &stream{g: g, times: 1} }

// pointer loads a pointer argument that moves by bytes per iteration.
func (s *stream) pointer(name string, bytes int) reg.GPVirtual {
	r := s.g.arg(name)
	s.moving = append(s.moving, movingPointer{r: r, bytes: bytes})
	return r
}

// ahead is how far before its use memory is fetched: the hardware's own fetching ends at a page.
const ahead = 4096

// far loads a pointer argument as pointer does, to data that come from beyond the second-level cache.
func (s *stream) far(name string) reg.GPVirtual {
	r := s.pointer(name, 64)
	s.fetched = append(s.fetched, r)
	return r
}

// stepped loads a pointer argument that moves by another argument's bytes.
func (s *stream) stepped(name, step string) reg.GPVirtual {
	r := s.g.arg(name)
	s.moving = append(s.moving, movingPointer{r: r, step: s.g.arg(step)})
	return r
}

// periodic returns the address of register h of a per-channel argument.
func (s *stream) periodic(base reg.GPVirtual, h int) operand.Mem {
	return operand.Mem{Base: base, Index: s.o, Scale: 1, Disp: h * s.g.bytes()}
}

// loop emits body once per iteration.
func (s *stream) loop(period bool, body func()) {
	g := s.g
	s.n = g.arg("n")
	var zero, end reg.GPVirtual
	if period {
		s.o, zero, end = g.GP64(), g.GP64(), g.arg("period")
		g.XORQ(s.o, s.o)
		if s.first != "" {
			s.o = g.arg(s.first)
			g.SHLQ(operand.I8(2), s.o)
		}
		g.XORQ(zero, zero)
		g.SHLQ(operand.I8(2), end)
	}
	g.Label("loop")
	for _, r := range s.fetched {
		g.PREFETCHT0(off(r, ahead))
	}
	body()
	for _, p := range s.moving {
		if p.bytes != 0 {
			g.ADDQ(imm(p.bytes), p.r)
		} else {
			g.ADDQ(p.step, p.r)
		}
	}
	if period {
		g.ADDQ(imm(64*s.times), s.o)
		g.CMPQ(s.o, end)
		g.CMOVQEQ(zero, s.o)
	}
	g.SUBQ(operand.I8(int8(lanes*s.times)), s.n)
	g.JNZ(operand.LabelRef("loop"))
}

// broadcast fills a register with a float32 or int32 argument.
func (g *gen) broadcast(name string) reg.VecVirtual {
	v := g.vec()
	g.VBROADCASTSS(g.slot(name), v)
	return v
}

// loadInt loads a whole register of integers.
func (g *gen) loadInt(m operand.Mem, v reg.VecVirtual) {
	if g.wide {
		g.VMOVDQU32(m, v)
	} else {
		g.VMOVDQU(m, v)
	}
}

// round rounds to integers, halves to even.
func (g *gen) round(src, dst reg.VecVirtual) {
	if g.wide {
		g.VRNDSCALEPS(operand.U8(0), src, dst)
	} else {
		g.VROUNDPS(operand.U8(0), src, dst)
	}
}

// storeBytes stores the int32 lanes of an iteration as bytes, which they fit.
func (g *gen) storeBytes(v []reg.VecVirtual, signed bool, m operand.Mem) {
	if g.wide {
		g.VPMOVDB(v[0], m)
		return
	}
	g.VPACKSSDW(v[1], v[0], v[0])
	g.VPERMQ(operand.U8(0xd8), v[0], v[0])
	hi := g.XMM()
	g.VEXTRACTI128(operand.U8(1), v[0], hi)
	if signed {
		g.VPACKSSWB(hi, v[0].AsX(), hi)
	} else {
		g.VPACKUSWB(hi, v[0].AsX(), hi)
	}
	g.VMOVDQU(hi, m)
}

// Comparison predicates of VCMPPS.
const (
	cmpEqual        = operand.U8(0)
	cmpUnordered    = operand.U8(3)
	cmpNotLessEqual = operand.U8(6) // greater or unordered
	cmpOrdered      = operand.U8(7)
	cmpGreaterEqual = operand.U8(13)
	cmpGreater      = operand.U8(14)
	cmpLess         = operand.U8(1)
	cmpLessEqual    = operand.U8(2)
)

// bitsOf joins the comparison results of an iteration into 16 bits: for zmm
// one opmask, for ymm the sign bits of two registers.
func (g *gen) bitsOf(k []reg.OpmaskVirtual, v []reg.VecVirtual) reg.GPVirtual {
	lo := g.GP64()
	if g.wide {
		g.KMOVW(k[0], lo.As32())
		return lo
	}
	hi := g.GP64()
	g.VMOVMSKPS(v[0], lo.As32())
	g.VMOVMSKPS(v[1], hi.As32())
	g.SHLL(operand.U8(8), hi.As32())
	g.ORL(hi.As32(), lo.As32())
	return lo
}

// scaled emits t = float32(acc+bias)*m for register h of an iteration.
func (s *stream) scaled(acc, bias, m reg.GPVirtual, bstep reg.GPVirtual, h int) reg.VecVirtual {
	g, v := s.g, s.g.vec()
	g.loadInt(off(acc, h*g.bytes()), v)
	g.VPADDD(operand.Mem{Base: bias, Index: bstep, Scale: 1, Disp: h * g.bytes()}, v, v)
	g.VCVTDQ2PS(v, v)
	g.VMULPS(s.periodic(m, h), v, v)
	return v
}

func streams(g *gen) {
	g.eachWidth(func() {
		g.requant()
		g.requantTrain()
		g.scaleRows()
		g.scaleGradRows()
		g.addBias()
		g.relu()
		g.reluGrad(false)
		g.reluGrad(true)
		g.quantize("F32")
		g.quantize("U8")
		g.quantize("S8")
		if g.wide {
			g.quantizeWeights()
			g.reciprocals()
		}
		g.quantizeTrain()
		g.dequantize("U8")
		g.dequantize("S8")
		g.maskGrad(false)
		g.maskGrad(true)
		g.addMasked()
		g.normalize()
		g.adam()
		g.absMaxColumns()
		g.minMax()
		g.columnSums("Sum")
		g.columnSums("SquaredDeviation")
		g.normSums()
		g.scaleGradColumns()
		g.scaleGradCodes()
		g.scaleGradU8()
		g.scaleGrad(false)
		g.scaleGrad(true)
		g.sumSquares()
		g.add()
		g.addReLU()
		g.scale()
	})
}

// biasOffset keeps the offset of the bias stream: that of the period when the
// argument biasMask is -1; always 0 when it is 0 and bias is sixteen zeros.
func (s *stream) biasOffset() (r reg.GPVirtual, refresh func()) {
	g := s.g
	r, keep := g.GP64(), g.arg("biasMask")
	return r, func() {
		g.MOVQ(s.o, r)
		g.ANDQ(keep, r)
	}
}

func (g *gen) requant() {
	name := "requant" + g.suffix()
	g.begin(name, "func(dst *uint8, acc, bias *int32, m *float32, n, period, biasMask int, lo, hi float32, zero int32)",
		name+" computes dst = rint(clamp(float32(acc+bias)*m, lo, hi)) + zero.")
	s := g.newStream()
	dst, acc := s.pointer("dst", 16), s.pointer("acc", 64)
	bias, m := g.arg("bias"), g.arg("m")
	lo, hi, zero := g.broadcast("lo"), g.broadcast("hi"), g.broadcast("zero")
	bo, refresh := s.biasOffset()
	s.loop(true, func() {
		refresh()
		var out []reg.VecVirtual
		for h := range g.halves() {
			v := s.scaled(acc, bias, m, bo, h)
			g.VMAXPS(lo, v, v)
			g.VMINPS(hi, v, v)
			g.VCVTPS2DQ(v, v)
			g.VPADDD(zero, v, v)
			out = append(out, v)
		}
		g.storeBytes(out, false, off(dst, 0))
	})
	g.end()
}

func (g *gen) requantTrain() {
	name := "requantTrain" + g.suffix()
	g.begin(name, "func(dst, mask *uint8, acc, bias *int32, m, stats *float32, n, period, biasMask int, lo, hi, above float32, zero int32)",
		name+" is requant that also stores mask bits, lo <= rint(t) <= hi and t > above,",
		"and widens stats: sixteen running minima, then sixteen maxima of t.")
	s := g.newStream()
	dst, mask, acc := s.pointer("dst", 16), s.pointer("mask", 2), s.pointer("acc", 64)
	bias, m := g.arg("bias"), g.arg("m")
	bo, refresh := s.biasOffset()
	e := g.newTrainEnd()
	s.loop(true, func() {
		refresh()
		for h := range g.halves() {
			e.add(s.scaled(acc, bias, m, bo, h))
		}
		e.store(dst, mask)
	})
	e.close()
	g.end()
}

// trainEnd is the end of a requantization in training: codes, mask bits and
// the extremes of what was rounded.
type trainEnd struct {
	g                                *gen
	stats                            reg.GPVirtual
	lo, hi, zero, above, least, most reg.VecVirtual
	out, inside                      []reg.VecVirtual
	k                                []reg.OpmaskVirtual
}

func (g *gen) newTrainEnd() *trainEnd {
	e := &trainEnd{
		g: g, lo: g.broadcast("lo"), hi: g.broadcast("hi"), zero: g.broadcast("zero"), above: g.broadcast("above"),
		stats: g.arg("stats"), least: g.vec(), most: g.vec(),
	}
	g.VMOVUPS(off(e.stats, 0), e.least)
	g.VMOVUPS(off(e.stats, 64), e.most)
	return e
}

// add rounds the next register of an iteration.
func (e *trainEnd) add(v reg.VecVirtual) {
	g, r := e.g, e.g.vec()
	g.VMINPS(v, e.least, e.least)
	g.VMAXPS(v, e.most, e.most)
	g.round(v, r)
	if g.wide {
		in := g.K()
		g.VCMPPS(cmpGreaterEqual, e.lo, r, in)
		g.VCMPPS(cmpLessEqual, e.hi, r, in, in)
		g.VCMPPS(cmpGreater, e.above, v, in, in)
		e.k = append(e.k, in)
	} else {
		in, c := g.vec(), g.vec()
		g.VCMPPS(cmpGreaterEqual, e.lo, r, in)
		g.VCMPPS(cmpLessEqual, e.hi, r, c)
		g.VANDPS(c, in, in)
		g.VCMPPS(cmpGreater, e.above, v, c)
		g.VANDPS(c, in, in)
		e.inside = append(e.inside, in)
	}
	g.VMAXPS(e.lo, r, r)
	g.VMINPS(e.hi, r, r)
	g.VCVTPS2DQ(r, r)
	g.VPADDD(e.zero, r, r)
	e.out = append(e.out, r)
}

// store ends an iteration.
func (e *trainEnd) store(dst, mask reg.GPVirtual) {
	e.g.MOVW(e.g.bitsOf(e.k, e.inside).As16(), off(mask, 0))
	e.g.storeBytes(e.out, false, off(dst, 0))
}

// close stores the extremes.
func (e *trainEnd) close() {
	e.g.VMOVUPS(e.least, off(e.stats, 0))
	e.g.VMOVUPS(e.most, off(e.stats, 64))
}

func (g *gen) scaleRows() {
	name := "scaleRows" + g.suffix()
	g.begin(name, "func(dst *float32, acc, bias *int32, m *float32, n, period, biasMask int)",
		name+" computes dst = float32(acc+bias)*m.")
	s := g.newStream()
	dst, acc := s.pointer("dst", 64), s.pointer("acc", 64)
	bias, m := g.arg("bias"), g.arg("m")
	bo, refresh := s.biasOffset()
	s.loop(true, func() {
		refresh()
		for h := range g.halves() {
			g.VMOVUPS(s.scaled(acc, bias, m, bo, h), off(dst, h*g.bytes()))
		}
	})
	g.end()
}

func (g *gen) scaleGradRows() {
	name := "scaleGradRows" + g.suffix()
	g.begin(name, "func(lane, dy *float32, acc, bias *int32, m *float32, codes, mask *uint8, n, period, biasMask int, zero int32)",
		name+" adds dy*(code-zero - t) to sixteen lanes where the mask bit is set, else dy*(code-zero);",
		"t is float32(acc+bias)*m.")
	s := g.newStream()
	dy, acc, codes, mask := s.pointer("dy", 64), s.pointer("acc", 64), s.pointer("codes", 16), s.pointer("mask", 2)
	bias, m := g.arg("bias"), g.arg("m")
	zero, bits := g.broadcast("zero"), g.newMaskBits()
	bo, refresh := s.biasOffset()
	sums, store := g.lanesInOut()
	s.loop(true, func() {
		refresh()
		for h := range sums {
			t, up := bits.at(off(mask, h)).keep(s.scaled(acc, bias, m, bo, h)), g.vec()
			g.VMOVUPS(off(dy, h*g.bytes()), up)
			g.codeSlope(codes, h, zero, t, up, sums[h])
		}
	})
	store()
	g.end()
}

func (g *gen) addBias() {
	name := "addBias" + g.suffix()
	g.begin(name, "func(y, x, bias *float32, n, period int)", name+" computes y = x + bias.")
	s := g.newStream()
	y, x := s.pointer("y", 64), s.pointer("x", 64)
	bias := g.arg("bias")
	s.loop(true, func() {
		for h := range g.halves() {
			v := g.vec()
			g.VMOVUPS(off(x, h*g.bytes()), v)
			g.VADDPS(s.periodic(bias, h), v, v)
			g.VMOVUPS(v, off(y, h*g.bytes()))
		}
	})
	g.end()
}

// clearUnless clears v where the comparison of x with limit does not hold.
func (g *gen) clearUnless(predicate operand.Op, x, limit, v reg.VecVirtual) {
	if g.wide {
		k := g.K()
		g.VCMPPS(predicate, limit, x, k)
		g.VMOVAPS_Z(v, k, v)
	} else {
		c := g.vec()
		g.VCMPPS(predicate, limit, x, c)
		g.VANDPS(c, v, v)
	}
}

func (g *gen) relu() {
	name := "relu" + g.suffix()
	g.begin(name, "func(y, x *float32, n int)", name+" computes y = x where x > 0 or x is NaN, else 0.")
	s := g.newStream()
	y, x := s.pointer("y", 64), s.far("x")
	zero := g.vec()
	g.zero(zero)
	s.loop(false, func() {
		for h := range g.halves() {
			v := g.vec()
			g.VMOVUPS(off(x, h*g.bytes()), v)
			g.clearUnless(cmpNotLessEqual, v, zero, v)
			g.VMOVUPS(v, off(y, h*g.bytes()))
		}
	})
	g.end()
}

// reluGrad emits the gradient of a ReLU, or of one with an upper limit.
func (g *gen) reluGrad(capped bool) {
	name, signature, doc := "reluGrad"+g.suffix(), "func(dx, dy, y *float32, n int)", " computes dx = dy where y > 0, else 0."
	if capped {
		name, signature, doc = "reluCapGrad"+g.suffix(), "func(dx, dy, y *float32, n int, limit float32)", " computes dx = dy where 0 < y < limit, else 0."
	}
	g.begin(name, signature, name+doc)
	s := g.newStream()
	dx, dy, y := s.pointer("dx", 64), s.far("dy"), s.far("y")
	zero, limit := g.vec(), reg.VecVirtual(nil)
	g.zero(zero)
	if capped {
		limit = g.broadcast("limit")
	}
	s.loop(false, func() {
		for h := range g.halves() {
			v, x := g.vec(), g.vec()
			g.VMOVUPS(off(y, h*g.bytes()), x)
			g.VMOVUPS(off(dy, h*g.bytes()), v)
			if capped {
				g.clearUnless(cmpLess, x, limit, v)
			}
			g.clearUnless(cmpGreater, x, zero, v)
			g.VMOVUPS(v, off(dx, h*g.bytes()))
		}
	})
	g.end()
}

// widen loads the bytes of register h of an iteration as int32 lanes.
func (g *gen) widen(signed bool, base reg.Register, h int, v reg.VecVirtual) {
	m := off(base, h*g.bytes()/4)
	if signed {
		g.VPMOVSXBD(m, v)
	} else {
		g.VPMOVZXBD(m, v)
	}
}

func (g *gen) dequantize(from string) {
	name := "dequantize" + from + g.suffix()
	element := map[string]string{"U8": "uint8", "S8": "int8"}[from]
	g.begin(name, "func(dst *float32, q *"+element+", scale *float32, n, period int, zero int32)",
		name+" computes dst = float32(q-zero)*scale.")
	s := g.newStream()
	dst, q := s.pointer("dst", 64), s.pointer("q", 16)
	scale, zero := g.arg("scale"), g.broadcast("zero")
	s.loop(true, func() {
		for h := range g.halves() {
			v := g.vec()
			g.widen(from == "S8", q, h, v)
			g.VPSUBD(zero, v, v)
			g.VCVTDQ2PS(v, v)
			g.VMULPS(s.periodic(scale, h), v, v)
			g.VMOVUPS(v, off(dst, h*g.bytes()))
		}
	})
	g.end()
}

func (g *gen) normalize() {
	name := "normalize" + g.suffix()
	g.begin(name, "func(y, x, mean, a, beta *float32, n, period int)", name+" computes y = (x-mean)*a + beta.")
	s := g.newStream()
	y, x := s.pointer("y", 64), s.pointer("x", 64)
	mean, a, beta := g.arg("mean"), g.arg("a"), g.arg("beta")
	s.loop(true, func() {
		for h := range g.halves() {
			v := g.vec()
			g.VMOVUPS(off(x, h*g.bytes()), v)
			g.VSUBPS(s.periodic(mean, h), v, v)
			g.VMULPS(s.periodic(a, h), v, v)
			g.VADDPS(s.periodic(beta, h), v, v)
			g.VMOVUPS(v, off(y, h*g.bytes()))
		}
	})
	g.end()
}

func (g *gen) adam() {
	name := "adam" + g.suffix()
	g.begin(name, "func(p, grad, m, v, factors *float32, n int)", name+" is one step of Adam; see adamGeneric.")
	s := g.newStream()
	p, gr, m, v := s.pointer("p", 64), s.pointer("grad", 64), s.pointer("m", 64), s.pointer("v", 64)
	factors := g.arg("factors")
	f := map[string]reg.VecVirtual{}
	for i, n := range []string{"b1", "b1c", "b2", "b2c", "size", "root", "eps", "decay", "keep"} {
		f[n] = g.vec()
		g.VBROADCASTSS(off(factors, 4*i), f[n])
	}
	s.loop(false, func() {
		for h := range g.halves() {
			d := h * g.bytes()
			pi, gi, x, y := g.vec(), g.vec(), g.vec(), g.vec()
			g.VMULPS(off(p, d), f["keep"], pi)
			g.VMULPS(pi, f["decay"], gi)
			g.VADDPS(off(gr, d), gi, gi)
			g.VMULPS(off(m, d), f["b1"], x)
			g.VMULPS(gi, f["b1c"], y)
			g.VADDPS(y, x, x) // the first moment
			g.VMOVUPS(x, off(m, d))
			g.VMULPS(f["size"], x, x)
			g.VMULPS(gi, f["b2c"], y)
			g.VMULPS(gi, y, y)
			g.VMULPS(off(v, d), f["b2"], gi)
			g.VADDPS(y, gi, gi) // the second
			g.VMOVUPS(gi, off(v, d))
			g.VSQRTPS(gi, gi)
			g.VDIVPS(f["root"], gi, gi)
			g.VADDPS(f["eps"], gi, gi)
			g.VDIVPS(gi, x, x)
			g.VSUBPS(x, pi, pi)
			g.VMOVUPS(pi, off(p, d))
		}
	})
	g.end()
}
