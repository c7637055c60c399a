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

// quantize emits one of the three quantizers: to codes (U8, S8) or to the
// values they stand for (F32).
func (g *gen) quantize(to string) {
	name := "quantize" + to + g.suffix()
	element := map[string]string{"F32": "float32", "U8": "uint8", "S8": "int8"}[to]
	size := map[string]int{"F32": 64, "U8": 16, "S8": 16}[to]
	g.begin(name, "func(dst *"+element+", mask *uint8, x, scale *float32, n, period, maskStep int, lo, hi float32, zero int32) (odd int)",
		name+" rounds x/scale to integers between lo and hi, 0 for NaN; see round.",
		"mask moves by maskStep bytes for sixteen elements. odd is 0, or says where the first NaN"+infinities[to == "S8"],
		"is: the elements left at its sixteen, shifted by 16, and one bit for each there.")
	s := g.newStream()
	dst, mask, x := s.pointer("dst", size), s.stepped("mask", "maskStep"), s.pointer("x", 64)
	scale := g.arg("scale")
	lo, hi, zero, none := g.broadcast("lo"), g.broadcast("hi"), g.broadcast("zero"), g.vec()
	g.zero(none)
	first := g.GP64()
	g.XORQ(first, first)
	s.loop(true, func() {
		var out, inside, oddV []reg.VecVirtual
		var k, evenK []reg.OpmaskVirtual
		for h := range g.halves() {
			v, r := g.vec(), g.vec()
			g.VMOVUPS(off(x, h*g.bytes()), v)
			rest := v
			if to == "S8" {
				rest = g.vec()
				g.VSUBPS(v, v, rest) // 0, and NaN of an infinity, too
			}
			g.VDIVPS(s.periodic(scale, h), v, v)
			g.round(v, r)
			if g.wide {
				in, ordered, c := g.K(), g.K(), g.vec()
				g.VCMPPS(cmpOrdered, v, v, ordered)
				even := ordered
				if to == "S8" {
					even = g.K()
					g.VCMPPS(cmpOrdered, rest, rest, even)
				}
				evenK = append(evenK, even)
				g.VMAXPS(lo, r, c)
				g.VMINPS(hi, c, c)
				g.VCMPPS(cmpEqual, r, c, in) // what the limits leave alone
				k = append(k, in)
				g.VMOVAPS_Z(c, ordered, r)
			} else {
				in, c, nan := g.vec(), g.vec(), g.vec()
				g.VCMPPS(cmpUnordered, v, v, nan)
				odd := nan
				if to == "S8" {
					odd = g.vec()
					g.VCMPPS(cmpUnordered, rest, rest, odd)
				}
				oddV = append(oddV, odd)
				g.VCMPPS(cmpGreaterEqual, lo, r, in)
				g.VCMPPS(cmpLessEqual, hi, r, c)
				g.VANDPS(c, in, in)
				inside = append(inside, in)
				g.VMAXPS(lo, r, r)
				g.VMINPS(hi, r, r)
				g.VANDNPS(r, nan, r)
			}
			if to == "F32" {
				g.VADDPS(none, r, r) // -0 becomes 0
				g.VMULPS(s.periodic(scale, h), r, r)
				g.VMOVUPS(r, off(dst, h*g.bytes()))
				continue
			}
			g.VCVTPS2DQ(r, r)
			if to == "U8" {
				g.VPADDD(zero, r, r)
			}
			out = append(out, r)
		}
		g.MOVW(g.bitsOf(k, inside).As16(), off(mask, 0))
		if to != "F32" {
			g.storeBytes(out, to == "S8", off(dst, 0))
		}
		var odd reg.GPVirtual
		if g.wide {
			g.KORTESTW(evenK[0], evenK[0])
			g.JCS(operand.LabelRef("next")) // none is odd
			g.KNOTW(evenK[0], evenK[0])
			odd = g.bitsOf(evenK, nil)
		} else {
			odd = g.bitsOf(nil, oddV)
			g.TESTL(odd.As32(), odd.As32())
			g.JZ(operand.LabelRef("next"))
		}
		g.TESTQ(first, first)
		g.JNZ(operand.LabelRef("next"))
		g.MOVQ(s.n, first)
		g.SHLQ(operand.U8(16), first)
		g.ORQ(odd, first)
		g.Label("next")
	})
	g.Store(first, g.ReturnIndex(0))
	g.end()
}

// quantizeWeights is quantize("S8") with fewer instructions, for values and scales far from the limits of float32. It
// multiplies by reciprocals, and two steps of Newton's method make the product the nearest number to the quotient
// (P. Markstein, IA-64 and Elementary Functions, 2000, chapter 8: after the first it is off by less than one in the last place, and
// so the second rounds right, as the reciprocal is rounded right). What is left alone by limits before rounding is what
// lies inside after it.
func (g *gen) quantizeWeights() {
	name := "quantizeWeights" + g.suffix()
	g.begin(name, "func(dst *int8, mask *uint8, x, scale, inverse *float32, n, period, maskStep int, least, most float32) (top int32)",
		name+" rounds x/scale to integers, after limiting it to what is rounded to the least and to the greatest of them.",
		"mask moves by maskStep bytes for sixteen elements. top is the bits of the greatest magnitude of x.")
	s := g.newStream()
	dst, mask, x := s.pointer("dst", 16), s.stepped("mask", "maskStep"), s.far("x")
	scale, inverse := g.arg("scale"), g.arg("inverse")
	least, most, abs, top := g.broadcast("least"), g.broadcast("most"), g.clearSign(), g.vec()
	g.zero(top)
	s.loop(true, func() {
		v, rest, q, c, k := g.vec(), g.vec(), g.vec(), g.vec(), g.K()
		divisor := g.vec()
		by := g.vec()
		g.VMOVUPS(off(x, 0), v)
		g.VMOVUPS(s.periodic(scale, 0), divisor)
		g.VMOVUPS(s.periodic(inverse, 0), by)
		g.VPANDD(v, abs, c)
		g.VPMAXUD(c, top, top)
		g.quotient(v, divisor, by, q, rest)
		g.VMAXPS(least, q, c)
		g.VMINPS(most, c, c)
		g.VCMPPS(cmpEqual, q, c, k)
		g.VCVTPS2DQ(c, c)
		g.MOVW(g.bitsOf([]reg.OpmaskVirtual{k}, nil).As16(), off(mask, 0))
		g.storeBytes([]reg.VecVirtual{c}, true, off(dst, 0))
	})
	g.foldMax(top)
	result := g.GP32()
	g.VMOVD(top.AsX(), result)
	g.Store(result, g.ReturnIndex(0))
	g.end()
}

// foldMax brings the greatest of the unsigned lanes of a zmm into its first.
func (g *gen) foldMax(v reg.VecVirtual) {
	t := g.vec()
	g.VEXTRACTI64X4(operand.U8(1), v, t.AsY())
	g.VPMAXUD(t.AsY(), v.AsY(), v.AsY())
	g.VEXTRACTI128(operand.U8(1), v.AsY(), t.AsX())
	for _, order := range []int{-1, 0x4e, 0xb1} {
		if order >= 0 {
			g.VPSHUFD(operand.U8(order), v.AsX(), t.AsX())
		}
		g.VPMAXUD(t.AsX(), v.AsX(), v.AsX())
	}
}

// reciprocals divides one by scales.
func (g *gen) reciprocals() {
	name := "reciprocals" + g.suffix()
	g.begin(name, "func(dst, x *float32, n int, least, most float32) (odd int)",
		name+" computes dst = 1/x, n a multiple of sixteen; odd is not 0 when one of x is below least or above most.")
	dst, x, n := g.arg("dst"), g.arg("x"), g.arg("n")
	least, most, one, r := g.broadcast("least"), g.broadcast("most"), g.vec(), g.GP32()
	g.MOVL(operand.U32(0x3f800000), r)
	g.VMOVD(r, one.AsX())
	g.VPBROADCASTD(one.AsX(), one)
	odd, k := g.K(), g.K()
	g.KXORW(odd, odd, odd)
	g.Label("loop")
	v := g.vec()
	g.VMOVUPS(off(x, 0), v)
	g.VCMPPS(cmpLess, least, v, k)
	g.KORW(k, odd, odd)
	g.VCMPPS(cmpGreater, most, v, k)
	g.KORW(k, odd, odd)
	g.VDIVPS(v, one, v)
	g.VMOVUPS(v, off(dst, 0))
	g.advance(imm(g.bytes()), x, dst)
	g.SUBQ(operand.I8(16), n)
	g.JNZ(operand.LabelRef("loop"))
	result := g.GP64()
	g.KMOVW(odd, result.As32())
	g.Store(result, g.ReturnIndex(0))
	g.end()
}

// infinities is how the quantizer of weights goes on about what it reports.
var infinities = map[bool]string{true: " or infinity"}

// maskBits loads values where their mask bits are set.
type maskBits struct {
	g   *gen
	bit reg.VecVirtual // ymm: lane i tests bit i of its byte
}

func (g *gen) newMaskBits() maskBits {
	if g.wide {
		return maskBits{g: g}
	}
	bit, r := g.vec(), g.GP64()
	g.MOVQ(operand.U64(0x8040201008040201), r)
	g.VMOVQ(r, bit.AsX())
	g.VPMOVZXBD(bit.AsX(), bit)
	return maskBits{g, bit}
}

// load is the values at m, or 0 where the bits of register h at mask are not set.
func (b maskBits) load(m operand.Mem, mask reg.Register, h int) reg.VecVirtual {
	return b.at(off(mask, h)).keep(m)
}

// lanesSet are the lanes of a register whose bits are set.
type lanesSet struct {
	g *gen
	k reg.OpmaskVirtual // of a zmm
	v reg.VecVirtual    // of a ymm: all bits of a lane
}

// at reads the bits of a register at m.
func (b maskBits) at(m operand.Mem) lanesSet {
	g := b.g
	if g.wide {
		k := g.K()
		g.KMOVW(m, k)
		return lanesSet{g: g, k: k}
	}
	c, r := g.vec(), g.GP32()
	g.MOVBLZX(m, r)
	g.VMOVD(r, c.AsX())
	g.VPBROADCASTD(c.AsX(), c)
	g.VPAND(b.bit, c, c)
	g.VPCMPEQD(b.bit, c, c)
	return lanesSet{g: g, v: c}
}

// keep is the values of a register or at an address, or 0 where a lane is not set.
func (l lanesSet) keep(m operand.Op) reg.VecVirtual {
	v := l.g.vec()
	if l.g.wide {
		l.g.VMOVUPS_Z(m, l.k, v)
	} else {
		l.g.VANDPS(m, l.v, v)
	}
	return v
}

// or adds the lanes of y that compare with x.
func (l lanesSet) or(predicate operand.Op, x, y reg.VecVirtual) lanesSet {
	g := l.g
	if g.wide {
		k := g.K()
		g.VCMPPS(predicate, x, y, k)
		g.KORW(k, l.k, k)
		return lanesSet{g: g, k: k}
	}
	c := g.vec()
	g.VCMPPS(predicate, x, y, c)
	g.VORPS(c, l.v, c)
	return lanesSet{g: g, v: c}
}

// maskGrad emits the gradient behind a mask, and behind a ReLU, too.
func (g *gen) maskGrad(relu bool) {
	name, signature, doc := "maskGrad"+g.suffix(), "func(dx, dy *float32, mask *uint8, n int)", " computes dx = dy where the mask bit is set, else 0."
	if relu {
		name, signature, doc = "maskReLUGrad"+g.suffix(), "func(dx, dy, y *float32, mask *uint8, n int)", " computes dx = dy where the mask bit is set and y > 0, else 0."
	}
	g.begin(name, signature, name+doc)
	s := g.newStream()
	dx, dy, mask := s.pointer("dx", 64), s.far("dy"), s.pointer("mask", 2)
	bits := g.newMaskBits()
	var y reg.GPVirtual
	zero := g.vec()
	if relu {
		y = s.pointer("y", 64)
		g.zero(zero)
	}
	s.loop(false, func() {
		for h := range g.halves() {
			v := bits.load(off(dy, h*g.bytes()), mask, h)
			if relu {
				x := g.vec()
				g.VMOVUPS(off(y, h*g.bytes()), x)
				g.clearUnless(cmpGreater, x, zero, v)
			}
			g.VMOVUPS(v, off(dx, h*g.bytes()))
		}
	})
	g.end()
}

func (g *gen) addMasked() {
	name := "addMasked" + g.suffix()
	g.begin(name, "func(dst, a, dy *float32, mask *uint8, n int)", name+" computes dst = a + (dy where the mask bit is set, else 0).")
	s := g.newStream()
	dst, a, dy, mask := s.pointer("dst", 64), s.pointer("a", 64), s.pointer("dy", 64), s.pointer("mask", 2)
	bits := g.newMaskBits()
	s.loop(false, func() {
		for h := range g.halves() {
			v := bits.load(off(dy, h*g.bytes()), mask, h)
			g.VADDPS(off(a, h*g.bytes()), v, v)
			g.VMOVUPS(v, off(dst, h*g.bytes()))
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
