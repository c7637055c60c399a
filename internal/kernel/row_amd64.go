package kernel

import "github.com/narrow-ml/narrow/internal/cpu"

// depthwiseVec computes the leading channels of a run.
func (t *isa) depthwiseVec(y, x, w []float32, r pixelRun, st cellSteps, out int, at tapSteps, g ConvGeom) (done int) {
	if t.tier == cpu.Generic {
		return 0
	}
	run := depthwiseF32Y
	if t.tier == cpu.AVX512VNNI {
		run = depthwiseF32Z
	}
	c, tap := g.Cout, at.of(r)
	if stride := sideBySide(r, st, g); stride != 0 && at.row == 3*at.cell && t.tier == cpu.AVX512VNNI {
		run := depthwise3F32Stride1
		if stride == 2 {
			run = depthwise3F32Stride2
		}
		for ; done+vecLanes <= c; done += vecLanes {
			run(&y[r.yAt+done], &x[r.xAt+done], &w[tap+done], r.pixels, 4*st.row, 4*st.cell, 4*out, 4*at.cell)
		}
		return done
	}
	for ; done+vecLanes <= c; done += vecLanes {
		run(&y[r.yAt+done], &x[r.xAt+done], &w[tap+done], r.pixels, r.rows, r.cols,
			4*st.pixel, 4*st.row, 4*st.cell, 4*out, 4*at.cell, 4*at.row)
	}
	return done
}

// depthwiseWeightVec adds a run's share of the weight gradient of the leading
// channels.
func (t *isa) depthwiseWeightVec(dw, x, dy []float32, r pixelRun, st cellSteps, g ConvGeom) (done int) {
	if t.tier == cpu.Generic {
		return 0
	}
	wide, lanes, c, tap := t.tier == cpu.AVX512VNNI, t.f32.lanes, g.Cout, g.depthTaps().of(r)
	three := [4]func(dw, x, dy *float32, pixels, xStep, rowStep, pitch, yStep, wStep, wRow int){
		nil, depthwiseWeight1Y, depthwiseWeight2Y, depthwiseWeight3Y,
	}
	one := depthwiseTapY
	if wide {
		three = [4]func(dw, x, dy *float32, pixels, xStep, rowStep, pitch, yStep, wStep, wRow int){
			nil, depthwiseWeight1Z, depthwiseWeight2Z, depthwiseWeight3Z,
		}
		one = depthwiseTapZ
	}
	for ; done+lanes <= c; done += lanes {
		kh := 0
		for r.cols == 3 && kh < r.rows {
			rows := min(3, r.rows-kh)
			three[rows](&dw[tap+kh*g.KW*c+done], &x[r.xAt+kh*st.row+done], &dy[r.yAt+done], r.pixels,
				4*st.pixel, 4*st.row, 4*st.cell, 4*c, 4*c, 4*g.KW*c)
			kh += rows
		}
		for ; kh < r.rows; kh++ {
			for kw := range r.cols {
				one(&dw[tap+(kh*g.KW+kw)*c+done], &x[r.xAt+kh*st.row+kw*st.cell+done], &dy[r.yAt+done], r.pixels, 4*st.pixel, 4*c)
			}
		}
	}
	return done
}

// sideBySide returns the stride, in cells, of a run of whole 3x3 windows that
// has a routine of its own; else 0.
func sideBySide(r pixelRun, st cellSteps, g ConvGeom) int {
	if g.KH != 3 || g.KW != 3 || r.rows != 3 || r.cols != 3 {
		return 0
	}
	switch st.pixel {
	case st.cell:
		return 1
	case 2 * st.cell:
		return 2
	}
	return 0
}

// sum3Func and requant3Func are the routines of whole 3x3 windows.
type (
	sum3Func     = func(y *int32, x *uint8, w *int8, pixels, rowStep, pitch, yStep, wStep int)
	requant3Func = func(y, x *uint8, w *int8, pixels, rowStep, pitch, yStep, wStep int, bias *int32, m *float32, lo, hi float32, zero int32)
)

// depthwiseU8Vec computes the leading channels of a run of whole windows.
func (t *isa) depthwiseU8Vec(sums []int32, rq *rowRequant, x []uint8, w []int8, r pixelRun, st cellSteps, g ConvGeom) (done int) {
	if t.tier == cpu.Generic {
		return 0
	}
	c, wide, stride := g.Cout, t.tier == cpu.AVX512VNNI, sideBySide(r, st, g)
	if sums != nil {
		if stride != 0 {
			run := [2]sum3Func{depthwise3U8Stride1Y, depthwise3U8Stride2Y}[stride-1]
			if wide {
				run = [2]sum3Func{depthwise3U8Stride1, depthwise3U8Stride2}[stride-1]
			}
			for ; done+vecLanes <= c; done += vecLanes {
				run(&sums[r.yAt+done], &x[r.xAt+done], &w[done], r.pixels, st.row, st.cell, 4*c, c)
			}
			return done
		}
		run := depthwiseU8Y
		if wide {
			run = depthwiseU8Z
		}
		for ; done+vecLanes <= c; done += vecLanes {
			run(&sums[r.yAt+done], &x[r.xAt+done], &w[done], r.pixels, r.rows, r.cols, st.pixel, st.row, st.cell, 4*c, c, g.KW*c)
		}
		return done
	}
	lo, hi := float32(rq.lo-rq.zero), float32(rq.hi-rq.zero)
	if stride != 0 {
		run := [2]requant3Func{depthwise3RequantStride1Y, depthwise3RequantStride2Y}[stride-1]
		if wide {
			run = [2]requant3Func{depthwise3RequantStride1, depthwise3RequantStride2}[stride-1]
		}
		for ; done+vecLanes <= c; done += vecLanes {
			run(&rq.dst[r.yAt+done], &x[r.xAt+done], &w[done], r.pixels, st.row, st.cell, c, c, &rq.bias[done], &rq.m[done], lo, hi, rq.zero)
		}
		return done
	}
	run := depthwiseRequantY
	if wide {
		run = depthwiseRequantZ
	}
	for ; done+vecLanes <= c; done += vecLanes {
		run(&rq.dst[r.yAt+done], &x[r.xAt+done], &w[done], r.pixels, r.rows, r.cols, st.pixel, st.row, st.cell, c, c, g.KW*c,
			&rq.bias[done], &rq.m[done], lo, hi, rq.zero)
	}
	return done
}

// maxRowsF32 is a max-pool without places, where the tier and the number of
// channels allow.
func (t *isa) maxRowsF32(y, x []float32, n int, g PoolGeom) bool {
	if t.tier == cpu.Generic || g.C%vecLanes != 0 {
		return false
	}
	run := maxRowF32Y
	if t.tier == cpu.AVX512VNNI {
		run = maxRowF32Z
	}
	conv := g.asConv()
	st := conv.steps()
	eachRun(n, conv, conv.pixels(), func(r pixelRun) {
		for c := 0; c < g.C; c += vecLanes {
			run(&y[r.yAt+c], &x[r.xAt+c], r.pixels, r.rows, r.cols, 4*st.pixel, 4*st.row, 4*st.cell, 4*g.C)
		}
	})
	return true
}

// maxRowsU8 is maxRowsF32 for codes.
func (t *isa) maxRowsU8(y, x []uint8, n int, g PoolGeom) bool {
	if t.tier == cpu.Generic || g.C%vecLanes != 0 {
		return false
	}
	conv := g.asConv()
	st := conv.steps()
	eachRun(n, conv, conv.pixels(), func(r pixelRun) {
		c := 0
		for ; c+32 <= g.C; c += 32 {
			maxRowU8Y(&y[r.yAt+c], &x[r.xAt+c], r.pixels, r.rows, r.cols, st.pixel, st.row, st.cell, g.C)
		}
		for ; c < g.C; c += vecLanes {
			maxRowU8X(&y[r.yAt+c], &x[r.xAt+c], r.pixels, r.rows, r.cols, st.pixel, st.row, st.cell, g.C)
		}
	})
	return true
}
