package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Depthwise convolutions of whole 3x3 windows side by side: the nine weights
// stay in registers, and a column that several of four pixels see is loaded
// once. zmm only: ymm have too few registers. Distances are those of row.go;
// windows are a stride of 1 or 2 cells apart.

func rows3(g *gen) {
	g.wide = true
	for stride := 1; stride <= 2; stride++ {
		for _, kind := range []string{"F32", "U8", "Requant"} {
			g.depthwise3(kind, stride)
		}
	}
}

func (g *gen) depthwise3(kind string, stride int) {
	name := "depthwise3" + kind + map[int]string{1: "Stride1", 2: "Stride2"}[stride]
	signature := map[string]string{
		"F32":     "func(y, x, w *float32, pixels, rowStep, pitch, yStep, wStep int)",
		"U8":      "func(y *int32, x *uint8, w *int8, pixels, rowStep, pitch, yStep, wStep int)",
		"Requant": "func(y, x *uint8, w *int8, pixels, rowStep, pitch, yStep, wStep int, bias *int32, m *float32, lo, hi float32, zero int32)",
	}[kind]
	g.begin(name, signature, name+" is depthwise"+kind+" for whole 3x3 windows; see row3.go.")
	float := kind == "F32"
	w, acc, col, t := g.vecs(9), g.vecs(together), g.vec(), g.vec()
	weights, wStep := g.arg("w"), g.arg("wStep")
	for i, v := range w {
		if float {
			g.VMOVUPS(off(weights, 0), v)
		} else {
			g.VPMOVSXBD(off(weights, 0), v)
		}
		if i < len(w)-1 {
			g.ADDQ(wStep, weights)
		}
	}
	var end requantEnd
	if kind == "Requant" {
		end = g.newRequantEnd()
	}
	y, x := g.arg("y"), g.arg("x")
	pixels, rowStep, pitch, yStep := g.arg("pixels"), g.arg("rowStep"), g.arg("pitch"), g.arg("yStep")
	group := func(count int) {
		suffix := map[int]string{1: "1", together: "4"}[count]
		next := operand.LabelRef("pixels1")
		if count == 1 {
			next = operand.LabelRef("done")
		}
		g.Label("pixels" + suffix)
		g.CMPQ(pixels, operand.I8(int8(count)))
		g.JLT(next)
		for _, v := range acc[:count] {
			g.zero(v)
		}
		row, third := g.GP64(), g.GP64()
		g.MOVQ(x, row)
		for kh := range 3 {
			g.MOVQ(row, third)
			for c := range (count-1)*stride + 3 {
				if c > 0 && c%3 == 0 { // the next three columns
					g.LEAQ(operand.Mem{Base: third, Index: pitch, Scale: 2}, third)
					g.ADDQ(pitch, third)
				}
				m := operand.Mem{Base: third}
				if c%3 > 0 {
					m.Index, m.Scale = pitch, uint8(c%3)
				}
				if float {
					g.VMOVUPS(m, col)
				} else {
					g.VPMOVZXBD(m, col)
				}
				for p := range count {
					kw := c - p*stride
					switch {
					case kw < 0 || kw > 2:
					case float:
						g.VMULPS(col, w[kh*3+kw], t)
						g.VADDPS(t, acc[p], acc[p])
					default: // the upper s16 of every lane of col is 0
						g.VPDPWSSD(w[kh*3+kw], col, acc[p])
					}
				}
			}
			if kh < 2 {
				g.ADDQ(rowStep, row)
			}
		}
		for _, v := range acc[:count] {
			switch kind {
			case "F32":
				g.VMOVUPS(v, off(y, 0))
			case "U8":
				g.VMOVDQU32(v, off(y, 0))
			default:
				end.apply(v)
				g.VPMOVDB(v, off(y, 0))
			}
			g.ADDQ(yStep, y)
			g.LEAQ(operand.Mem{Base: x, Index: pitch, Scale: uint8(stride)}, x)
		}
		g.SUBQ(operand.I8(int8(count)), pixels)
		g.JMP(operand.LabelRef("pixels" + suffix))
	}
	group(together)
	group(1)
	g.Label("done")
	g.end()
}

// requantEnd is the end of an integer product of sixteen channels.
type requantEnd struct {
	g                     *gen
	bias, m, lo, hi, zero reg.VecVirtual
}

func (g *gen) newRequantEnd() requantEnd {
	e := requantEnd{g, g.vec(), g.vec(), g.broadcast("lo"), g.broadcast("hi"), g.broadcast("zero")}
	g.VMOVDQU32(off(g.arg("bias"), 0), e.bias)
	g.VMOVUPS(off(g.arg("m"), 0), e.m)
	return e
}

// apply turns sums into codes in int32 lanes: rint(clamp(float32(v+bias)*m, lo, hi)) + zero.
func (e requantEnd) apply(v reg.VecVirtual) {
	g := e.g
	g.VPADDD(e.bias, v, v)
	g.VCVTDQ2PS(v, v)
	g.VMULPS(e.m, v, v)
	g.VMAXPS(e.lo, v, v)
	g.VMINPS(e.hi, v, v)
	g.VCVTPS2DQ(v, v)
	g.VPADDD(e.zero, v, v)
}
