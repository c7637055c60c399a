package kernel

import "github.com/narrow-ml/narrow/internal/cpu"

// depthwiseVec computes the leading channels of a run.
func (t *isa) depthwiseVec(y, x, w []float32, r pixelRun, st cellSteps, g ConvGeom) (done int) {
	if t.tier == cpu.Generic {
		return 0
	}
	run := depthwiseF32Y
	if t.tier == cpu.AVX512VNNI {
		run = depthwiseF32Z
	}
	c, tap := g.Cout, r.tap*g.Cout
	for ; done+vecLanes <= c; done += vecLanes {
		run(&y[r.yAt+done], &x[r.xAt+done], &w[tap+done], r.pixels, r.rows, r.cols,
			4*st.pixel, 4*st.row, 4*st.cell, 4*c, 4*c, 4*g.KW*c)
	}
	return done
}

// depthwiseU8Vec computes the leading channels of a run of whole windows.
func (t *isa) depthwiseU8Vec(sums []int32, rq *rowRequant, x []uint8, w []int8, r pixelRun, st cellSteps, g ConvGeom) (done int) {
	if t.tier == cpu.Generic {
		return 0
	}
	c, wide := g.Cout, t.tier == cpu.AVX512VNNI
	if sums != nil {
		run := depthwiseU8Y
		if wide {
			run = depthwiseU8Z
		}
		for ; done+vecLanes <= c; done += vecLanes {
			run(&sums[r.yAt+done], &x[r.xAt+done], &w[done], r.pixels, r.rows, r.cols, st.pixel, st.row, st.cell, 4*c, c, g.KW*c)
		}
		return done
	}
	run := depthwiseRequantY
	if wide {
		run = depthwiseRequantZ
	}
	lo, hi := float32(rq.lo-rq.zero), float32(rq.hi-rq.zero)
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
	eachRun(n, g.C, conv, func(r pixelRun) {
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
	eachRun(n, g.C, conv, func(r pixelRun) {
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
