package kernel

import "github.com/narrow-ml/narrow/internal/cpu"

// Each method below does a whole image, or reports false: the tier has no
// vectors, or the channels do not fill them.

func (t *isa) tiled(g PoolGeom) bool {
	return t.tier != cpu.Generic && g.C%vecLanes == 0 && g.inSize() > 0
}

func (t *isa) normPoolVec(y []float32, arg []uint8, win, v []float32, p *NormParams, g PoolGeom) bool {
	if !t.tiled(g) {
		return false
	}
	run := normPoolY
	if t.tier == cpu.AVX512VNNI {
		run = normPoolZ
	}
	line, out := g.W*g.C, g.OutW()*g.C
	for oy := range g.OutH() {
		run(&y[oy*out], &arg[oy*out], &win[oy*out], &v[oy*g.KH*line], &p.rows[0], 4*line, g.KH, 4*g.KW*g.C, 4*g.C, g.OutW())
	}
	return true
}

func (t *isa) normPoolGradVec(dv []float32, row int, v, dy []float32, arg []uint8, p *NormParams, g PoolGeom) bool {
	if !t.tiled(g) {
		return false
	}
	run := normPoolGradY
	if t.tier == cpu.AVX512VNNI {
		run = normPoolGradZ
	}
	line, out := g.W*g.C, g.OutW()*g.C
	for oy := range g.OutH() {
		run(&dv[oy*g.KH*row], &v[oy*g.KH*line], &dy[oy*out], &arg[oy*out], &p.rows[0], 4*row, 4*line, g.KH, 4*g.KW*g.C, 4*g.C, g.OutW())
	}
	return true
}

func (t *isa) poolScatterVec(dst []float32, row int, dy []float32, arg []uint8, g PoolGeom) bool {
	if !t.tiled(g) {
		return false
	}
	run := poolScatterY
	if t.tier == cpu.AVX512VNNI {
		run = poolScatterZ
	}
	out := g.OutW() * g.C
	for oy := range g.OutH() {
		run(&dst[oy*g.KH*row], &dy[oy*out], &arg[oy*out], 4*row, g.KH, 4*g.KW*g.C, 4*g.C, g.OutW())
	}
	return true
}

func (t *isa) maxAccsVec(win []int32, arg []uint8, acc []int32, sign *Signs, g PoolGeom) bool {
	if !t.tiled(g) {
		return false
	}
	run := maxAccsY
	if t.tier == cpu.AVX512VNNI {
		run = maxAccsZ
	}
	line, out := g.W*g.C, g.OutW()*g.C
	for oy := range g.OutH() {
		run(&win[oy*out], &arg[oy*out], &acc[oy*g.KH*line], &sign.rows[0], 4*line, g.KH, 4*g.KW*g.C, 4*g.C, g.OutW())
	}
	return true
}
