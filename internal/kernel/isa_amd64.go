package kernel

import "github.com/narrow-ml/narrow/internal/cpu"

// tierKernels returns the kernels of tier t, which this machine must have.
func tierKernels(t cpu.Tier) *isa {
	switch t {
	case cpu.AVX512VNNI:
		return &isa{tier: t, f32: &tilesF32Z, s8: &tilesS8Z, s16: &tilesS16Z}
	case cpu.AVX2:
		return &isa{tier: t, f32: &tilesF32Y, s8: &tilesS8Y, s6: &tilesS6Y, s16: &tilesS16Y}
	default:
		return &isa{tier: t}
	}
}

// The tables below are never written.

var tilesF32Z = tilesF32{
	lanes: 16, mask: maskBits32,
	winograd: winogradTiles{taps: winogradTapsZ, points: winogradPointsZ, sums: winogradSumsZ, filter: winogradFilterZ, gradient: winogradGradientZ},
	run: [3][]tileF32Func{
		1: {nil, tileF32Z1x1, tileF32Z2x1, tileF32Z3x1, tileF32Z4x1, tileF32Z5x1, tileF32Z6x1, tileF32Z7x1,
			tileF32Z8x1, tileF32Z9x1, tileF32Z10x1, tileF32Z11x1, tileF32Z12x1, tileF32Z13x1, tileF32Z14x1,
			tileF32Z15x1, tileF32Z16x1},
		2: {nil, tileF32Z1x2, tileF32Z2x2, tileF32Z3x2, tileF32Z4x2, tileF32Z5x2, tileF32Z6x2, tileF32Z7x2,
			tileF32Z8x2, tileF32Z9x2, tileF32Z10x2, tileF32Z11x2, tileF32Z12x2, tileF32Z13x2, tileF32Z14x2},
	},
}

var tilesF32Y = tilesF32{
	lanes: 8, mask: maskLanes, pack: packPanelY,
	winograd: winogradTiles{taps: winogradTapsY, points: winogradPointsY, sums: winogradSumsY, filter: winogradFilterY, gradient: winogradGradientY},
	run: [3][]tileF32Func{
		1: {nil, tileF32Y1x1, tileF32Y2x1, tileF32Y3x1, tileF32Y4x1, tileF32Y5x1, tileF32Y6x1},
		2: {nil, tileF32Y1x2, tileF32Y2x2, tileF32Y3x2, tileF32Y4x2, tileF32Y5x2, tileF32Y6x2},
	},
}

var tilesS8Z = tilesS8{
	rows: 14, cols: 32, size: 1, group: 4, mask: maskBits32, pack: packQuads, packVec: packQuadsY,
	run: []tileFunc{nil, tileS8Z1x2, tileS8Z2x2, tileS8Z3x2, tileS8Z4x2, tileS8Z5x2, tileS8Z6x2, tileS8Z7x2,
		tileS8Z8x2, tileS8Z9x2, tileS8Z10x2, tileS8Z11x2, tileS8Z12x2, tileS8Z13x2, tileS8Z14x2},
	narrow: []tileFunc{nil, tileS8Z1x1, tileS8Z2x1, tileS8Z3x1, tileS8Z4x1, tileS8Z5x1, tileS8Z6x1, tileS8Z7x1,
		tileS8Z8x1, tileS8Z9x1, tileS8Z10x1, tileS8Z11x1, tileS8Z12x1, tileS8Z13x1, tileS8Z14x1},
	codes: []requantTileFunc{nil, tileRequantZ1x2, tileRequantZ2x2, tileRequantZ3x2, tileRequantZ4x2, tileRequantZ5x2, tileRequantZ6x2, tileRequantZ7x2,
		tileRequantZ8x2, tileRequantZ9x2, tileRequantZ10x2, tileRequantZ11x2, tileRequantZ12x2, tileRequantZ13x2, tileRequantZ14x2},
	values: []valueTileFunc{nil, tileValuesZ1x2, tileValuesZ2x2, tileValuesZ3x2, tileValuesZ4x2, tileValuesZ5x2, tileValuesZ6x2, tileValuesZ7x2,
		tileValuesZ8x2, tileValuesZ9x2, tileValuesZ10x2, tileValuesZ11x2, tileValuesZ12x2, tileValuesZ13x2, tileValuesZ14x2},
	narrowValues: []valueTileFunc{nil, tileValuesZ1x1, tileValuesZ2x1, tileValuesZ3x1, tileValuesZ4x1, tileValuesZ5x1, tileValuesZ6x1, tileValuesZ7x1,
		tileValuesZ8x1, tileValuesZ9x1, tileValuesZ10x1, tileValuesZ11x1, tileValuesZ12x1, tileValuesZ13x1, tileValuesZ14x1},
	narrowCodes: []requantTileFunc{nil, tileRequantZ1x1, tileRequantZ2x1, tileRequantZ3x1, tileRequantZ4x1, tileRequantZ5x1, tileRequantZ6x1, tileRequantZ7x1,
		tileRequantZ8x1, tileRequantZ9x1, tileRequantZ10x1, tileRequantZ11x1, tileRequantZ12x1, tileRequantZ13x1, tileRequantZ14x1},
}

var tilesS8Y = tilesS8{
	rows: 6, cols: 16, size: 2, group: 4, mask: maskLanes, pack: packPairs, packVec: packPairsY,
	run:    []tileFunc{nil, tileS8Y1x2, tileS8Y2x2, tileS8Y3x2, tileS8Y4x2, tileS8Y5x2, tileS8Y6x2},
	codes:  []requantTileFunc{nil, tileRequantY1x2, tileRequantY2x2, tileRequantY3x2, tileRequantY4x2, tileRequantY5x2, tileRequantY6x2},
	values: []valueTileFunc{nil, tileValuesY1x2, tileValuesY2x2, tileValuesY3x2, tileValuesY4x2, tileValuesY5x2, tileValuesY6x2},
}

var tilesS6Y = tilesS8{
	rows: 5, cols: 16, size: 1, group: 8, mask: maskLanes, pack: packQuads, packVec: packBytesY,
	run:    []tileFunc{nil, tileS8BytesY1x2, tileS8BytesY2x2, tileS8BytesY3x2, tileS8BytesY4x2, tileS8BytesY5x2},
	codes:  []requantTileFunc{nil, tileRequantBytesY1x2, tileRequantBytesY2x2, tileRequantBytesY3x2, tileRequantBytesY4x2, tileRequantBytesY5x2},
	values: []valueTileFunc{nil, tileValuesBytesY1x2, tileValuesBytesY2x2, tileValuesBytesY3x2, tileValuesBytesY4x2, tileValuesBytesY5x2},
}

var tilesS16Z = tilesS16{
	rows: 14, lanes: 16, mask: maskBits32,
	winograd: winograd16Tiles{
		taps:  [2]func(dst, src *int32, tiles, pixel, row, plane int){winogradTapsWordsZ, winogradTapsWordsY},
		codes: winogradTapsCodesZ, points: winogradPointsWordsZ, sums: winogradSumsIntsZ, dw: winogradGradientIntsZ, round: roundWordsZ,
	},
	run: [3][]tileS16Func{
		1: {nil, tileS16Z1x1, tileS16Z2x1, tileS16Z3x1, tileS16Z4x1, tileS16Z5x1, tileS16Z6x1, tileS16Z7x1,
			tileS16Z8x1, tileS16Z9x1, tileS16Z10x1, tileS16Z11x1, tileS16Z12x1, tileS16Z13x1, tileS16Z14x1},
		2: {nil, tileS16Z1x2, tileS16Z2x2, tileS16Z3x2, tileS16Z4x2, tileS16Z5x2, tileS16Z6x2, tileS16Z7x2,
			tileS16Z8x2, tileS16Z9x2, tileS16Z10x2, tileS16Z11x2, tileS16Z12x2, tileS16Z13x2, tileS16Z14x2},
	},
}

var tilesS16Y = tilesS16{
	rows: 6, lanes: 8, mask: maskLanes,
	winograd: winograd16Tiles{
		taps:  [2]func(dst, src *int32, tiles, pixel, row, plane int){winogradTapsWordsY, winogradTapsWordsY},
		codes: winogradTapsCodesY, points: winogradPointsWordsY, sums: winogradSumsIntsY, dw: winogradGradientIntsY, round: roundWordsY,
	},
	run: [3][]tileS16Func{
		1: {nil, tileS16Y1x1, tileS16Y2x1, tileS16Y3x1, tileS16Y4x1, tileS16Y5x1, tileS16Y6x1},
		2: {nil, tileS16Y1x2, tileS16Y2x2, tileS16Y3x2, tileS16Y4x2, tileS16Y5x2, tileS16Y6x2},
	},
}

// laneBits[n] has the low n bits set: the mask of n columns of zmm tiles.
var laneBits = [33]int32{
	1<<0 - 1, 1<<1 - 1, 1<<2 - 1, 1<<3 - 1, 1<<4 - 1, 1<<5 - 1, 1<<6 - 1, 1<<7 - 1, 1<<8 - 1,
	1<<9 - 1, 1<<10 - 1, 1<<11 - 1, 1<<12 - 1, 1<<13 - 1, 1<<14 - 1, 1<<15 - 1, 1<<16 - 1,
	1<<17 - 1, 1<<18 - 1, 1<<19 - 1, 1<<20 - 1, 1<<21 - 1, 1<<22 - 1, 1<<23 - 1, 1<<24 - 1,
	1<<25 - 1, 1<<26 - 1, 1<<27 - 1, 1<<28 - 1, 1<<29 - 1, 1<<30 - 1, 1<<31 - 1, -1,
}

// laneMask is 16 lanes of ones, then zeros; &laneMask[16-n] is the mask of n
// columns of ymm tiles.
var laneMask = [32]int32{-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1}

func maskBits32(n int) *int32 { return &laneBits[n] }
func maskLanes(n int) *int32  { return &laneMask[16-n] }
