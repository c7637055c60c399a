package datasets

import (
	"fmt"
	"slices"

	"github.com/narrow-ml/narrow/internal/rng"
)

// Split cuts a validation split of round(fraction*N) examples from a training split. Which examples depends on N,
// fraction and seed alone; both parts keep the order the examples had. With fraction 0 val is nil and rest is s itself.
// A fraction that would leave either part empty is an error.
func Split(s *Set, fraction float64, seed uint64) (rest, val *Set, err error) {
	if err := s.Validate(); err != nil {
		return nil, nil, err
	}
	if !(fraction >= 0 && fraction < 1) { // also refuses NaN
		return nil, nil, fmt.Errorf("validation fraction %v, want at least 0 and less than 1", fraction)
	}
	if fraction == 0 {
		return s, nil, nil
	}
	n := s.Len()
	v := int(float64(fraction*float64(n)) + 0.5)
	if v == 0 || v == n {
		return nil, nil, fmt.Errorf("validation fraction %v of %d examples leaves %d for validation and %d for training", fraction, n, v, n-v)
	}
	rows := make([]int32, n)
	r := rng.New(seed, rng.Split)
	r.Perm(rows)
	slices.Sort(rows[:v])
	slices.Sort(rows[v:])
	if val, err = s.Subset(rows[:v]); err != nil {
		return nil, nil, err
	}
	if rest, err = s.Subset(rows[v:]); err != nil {
		return nil, nil, err
	}
	return rest, val, nil
}
