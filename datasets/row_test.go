package datasets_test

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/datasets"
)

func TestParseRow(t *testing.T) {
	shape := []int{2, 2, 1}
	tests := []struct {
		row  string
		max  uint8
		want []uint8
		err  string
	}{
		{"0,1,2,3", 16, []uint8{0, 1, 2, 3}, ""},
		{" 0 ,\t16,12.0,1e1", 16, []uint8{0, 16, 12, 10}, ""},
		{"0,255,-0,+7", 255, []uint8{0, 255, 0, 7}, ""},
		{"0,1,2", 16, nil, "the row has 3 columns, want 4 for shape [2 2 1] (no label column)"},
		{"0,1,2,3,4", 16, nil, "the row has 5 columns, want 4"},
		{"0,1,17,3", 16, nil, `column 3: "17" is not a whole number from 0 to 16`},
		{"0,1,16.0001,3", 16, nil, `column 3: "16.0001"`},
		{"256,1,2,3", 255, nil, `column 1: "256" is not a whole number from 0 to 255`},
		{"0,-1,2,3", 255, nil, `column 2: "-1"`},
		{"0,1,2,0.5", 255, nil, `column 4: "0.5"`},
		{"0,,2,3", 255, nil, `column 2: ""`},
		{"NaN,1,2,3", 255, nil, `column 1: "NaN"`},
		{"Inf,1,2,3", 255, nil, `column 1: "Inf"`},
		{"0,one,2,3", 255, nil, `column 2: "one"`},
		{"0,99999999999999999999999,2,3", 255, nil, `column 2`},
	}
	for _, tt := range tests {
		got, err := datasets.ParseRow(strings.Split(tt.row, ","), shape, tt.max)
		if tt.err == "" {
			if err != nil || !bytes.Equal(got, tt.want) {
				t.Errorf("%q: %v, %v, want %v", tt.row, got, err, tt.want)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%q: error %v, want %q", tt.row, err, tt.err)
		}
	}
	for _, shape := range [][]int{nil, {0}, {-1, -4}, {1 << 20, 1 << 20}} {
		if _, err := datasets.ParseRow([]string{"1"}, shape, 255); err == nil || !strings.Contains(err.Error(), "shape") {
			t.Errorf("shape %v: error %v", shape, err)
		}
	}
}

func FuzzParseRow(f *testing.F) {
	f.Add("0,1,2,16", uint8(16))
	f.Add("12.0, 1e1 ,0x1p2,-0", uint8(255))
	f.Add("NaN,Inf,-1,99999999999999999999", uint8(3))
	f.Fuzz(func(t *testing.T, row string, maxCode uint8) {
		fields := strings.Split(row, ",")
		codes, err := datasets.ParseRow(fields, []int{len(fields)}, maxCode)
		if err != nil {
			var re *datasets.RowError
			if !errors.As(err, &re) || re.Column < 1 || re.Column > len(fields) || fields[re.Column-1] != re.Value {
				t.Fatalf("%q: error %v does not name a field", row, err)
			}
			return
		}
		for i, q := range codes {
			v, err := strconv.ParseFloat(strings.TrimSpace(fields[i]), 64)
			if q > maxCode || err != nil || v != float64(q) {
				t.Fatalf("field %q became %d (at most %d allowed)", fields[i], q, maxCode)
			}
		}
	})
}
