package datasets

import (
	"errors"
	"fmt"
	"math"
)

// Set is one split in memory.
type Set struct {
	Shape  []int   // one example, NHWC without N: [28 28 1]
	X      []uint8 // pixel codes, N * product(Shape), row-major
	Labels []int32 // class of each example, N
}

// Len returns N, the number of examples.
func (s *Set) Len() int { return len(s.Labels) }

// Elems returns the number of codes of one example, the product of Shape.
func (s *Set) Elems() int {
	n := 1
	for _, d := range s.Shape {
		n *= d
	}
	return n
}

// Row returns the codes of example i, a part of X. i must be in [0, Len()).
func (s *Set) Row(i int) []uint8 {
	n := s.Elems()
	return s.X[i*n : (i+1)*n : (i+1)*n]
}

// Subset copies the examples whose rows are listed, in that order. A row may be listed more than once.
func (s *Set) Subset(rows []int32) (*Set, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	n := s.Elems()
	out := &Set{
		Shape:  append([]int(nil), s.Shape...),
		X:      make([]uint8, len(rows)*n),
		Labels: make([]int32, len(rows)),
	}
	for i, r := range rows {
		if r < 0 || int(r) >= s.Len() {
			return nil, fmt.Errorf("subset: rows[%d] is %d, the set has rows 0 to %d", i, r, s.Len()-1)
		}
		copy(out.X[i*n:(i+1)*n], s.Row(int(r)))
		out.Labels[i] = s.Labels[r]
	}
	return out, nil
}

// Validate reports a shape that is empty or too large and lengths that do not fit together.
func (s *Set) Validate() error {
	if s == nil {
		return errors.New("set: there is none")
	}
	n, err := elems(s.Shape)
	if err != nil {
		return fmt.Errorf("set: %w", err)
	}
	if len(s.Labels) > math.MaxInt32 {
		return fmt.Errorf("set: %d examples, at most %d can be numbered", len(s.Labels), math.MaxInt32)
	}
	// Divide instead of multiplying: the product may overflow.
	if len(s.X)/n != len(s.Labels) || len(s.X)%n != 0 {
		return fmt.Errorf("set: %d labels need %d codes each (shape %v), X has %d codes", len(s.Labels), n, s.Shape, len(s.X))
	}
	return nil
}

// elems is the product of a shape whose sizes are all positive and which fits an int32.
func elems(shape []int) (int, error) {
	if len(shape) == 0 {
		return 0, errors.New("shape is empty, give the sizes of one example such as [28 28 1]")
	}
	n := 1
	for i, d := range shape {
		if d <= 0 {
			return 0, fmt.Errorf("shape %v: size %d at axis %d, want at least 1", shape, d, i)
		}
		if n > math.MaxInt32/d {
			return 0, fmt.Errorf("shape %v: more than %d elements", shape, math.MaxInt32)
		}
		n *= d
	}
	return n, nil
}

// Dataset is a named set of examples in up to three splits, with what its codes mean.
type Dataset struct {
	Name    string
	Classes []string // name of class c is Classes[c]
	Scale   float32  // value = Scale * (code - Zero)
	Zero    int32
	MaxCode uint8 // codes are 0..MaxCode

	Train *Set
	Val   *Set // nil without Options.ValFraction
	Test  *Set // the published test split, never mixed with the others

	Source  string // where it was found: "embedded" or a folder
	Licence string
}

// Validate checks every split and that labels and codes are within Classes and MaxCode.
func (d *Dataset) Validate() error {
	splits := []struct {
		name string
		set  *Set
	}{{"train", d.Train}, {"val", d.Val}, {"test", d.Test}}
	for _, sp := range splits {
		if sp.set == nil && sp.name == "val" {
			continue
		}
		if err := sp.set.check(len(d.Classes), d.MaxCode); err != nil {
			return fmt.Errorf("%s: %s: %w", d.Name, sp.name, err)
		}
	}
	return nil
}

func (s *Set) check(classes int, maxCode uint8) error {
	if err := s.Validate(); err != nil {
		return err
	}
	for i, l := range s.Labels {
		if l < 0 || int(l) >= classes {
			return fmt.Errorf("example %d: label %d, want 0 to %d", i, l, classes-1)
		}
	}
	n := s.Elems()
	for i, q := range s.X {
		if q > maxCode {
			return fmt.Errorf("example %d: code %d at element %d, want 0 to %d", i/n, q, i%n, maxCode)
		}
	}
	return nil
}
