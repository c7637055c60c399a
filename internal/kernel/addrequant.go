package kernel

// Term is one tensor of codes in a sum: element i stands for
// float32(Q[i]-Zero) * M in units of the result's scale, so M is the quotient
// of two scales.
type Term struct {
	Q    []uint8
	Zero int32
	M    float32
}

// at is the value of element i, with one rounding.
func (t *Term) at(i int) float32 { return float32(float32(int32(t.Q[i])-t.Zero) * t.M) }

// slice is the elements [lo, hi).
func (t Term) slice(lo, hi int) Term { return Term{t.Q[lo:hi], t.Zero, t.M} }

// AddScaled writes the sum of two terms before rounding:
//
//	dst = float32(float32(qa-za)*ma) + float32(float32(qb-zb)*mb)
func AddScaled(dst []float32, a, b Term) { active.addScaled(dst, a, b) }

func (t *isa) addScaled(dst []float32, a, b Term) {
	a, b = a.slice(0, len(dst)), b.slice(0, len(dst))
	for i := t.addScaledVec(dst, a, b); i < len(dst); i++ {
		x := a.at(i)
		dst[i] = x + b.at(i)
	}
}

// AddRequant adds two tensors of codes and rounds the sum to the result's
// grid:
//
//	dst = int32(rint(clamp(float32(float32(qa-za)*ma) + float32(float32(qb-zb)*mb), lo-zero, hi-zero))) + zero
//
// one addition, halves to even. lo and hi lie in [0,255]; ReLU is lo = zero.
// dst may be the codes of a or b.
func AddRequant(dst []uint8, a, b Term, zero, lo, hi int32) {
	active.addRequant(dst, a, b, zero, lo, hi)
}

func (t *isa) addRequant(dst []uint8, a, b Term, zero, lo, hi int32) {
	a, b = a.slice(0, len(dst)), b.slice(0, len(dst))
	flo, fhi := float32(lo-zero), float32(hi-zero)
	for i := t.addRequantVec(dst, a, b, zero, flo, fhi); i < len(dst); i++ {
		x := a.at(i)
		sum := x + b.at(i)
		if !(sum > flo) {
			sum = flo
		}
		if sum > fhi {
			sum = fhi
		}
		dst[i] = uint8(int32(sum+roundMagic-roundMagic) + zero)
	}
}

// AddRequantTrain is AddRequant that also keeps what training needs, as
// RequantTrain does. A shard must begin at a multiple of eight elements.
func AddRequantTrain(dst, mask []uint8, a, b Term, zero, lo, hi int32, relu bool) RequantStats {
	return active.addRequantTrain(dst, mask, a, b, zero, lo, hi, relu)
}

func (t *isa) addRequantTrain(dst, mask []uint8, a, b Term, zero, lo, hi int32, relu bool) RequantStats {
	if len(dst) == 0 {
		return RequantStats{}
	}
	a, b, mask = a.slice(0, len(dst)), b.slice(0, len(dst)), mask[:MaskLen(len(dst))]
	flo, fhi := float32(lo-zero), float32(hi-zero)
	x := a.at(0)
	t0 := x + b.at(0)
	st := RequantStats{t0, t0}
	var bits uint8
	for i := t.addRequantTrainVec(dst, mask, a, b, zero, flo, fhi, relu, &st); i < len(dst); i++ {
		x := a.at(i)
		t := x + b.at(i)
		st.Min, st.Max = min(st.Min, t), max(st.Max, t)
		q := rintClamped(t, flo, fhi)
		if q >= flo && q <= fhi && (!relu || t > 0) {
			bits |= 1 << (i & 7)
		}
		if !(q > flo) {
			q = flo
		}
		if q > fhi {
			q = fhi
		}
		dst[i] = uint8(int32(q) + zero)
		if i&7 == 7 || i == len(dst)-1 {
			mask[i>>3], bits = bits, 0
		}
	}
	return RequantStats{st.Min + 0, st.Max + 0} // -0 + 0 is 0
}
