package onnx

import (
	"slices"
	"testing"

	"github.com/narrow-ml/narrow/model"
)

// H = 2, W = 3, C = 4, two units: row (h, w, c) of the model is row (c, h, w) of the file. The element is 1000h+100w+10c+u.
func TestChannelsFirstRows(t *testing.T) {
	s := model.Shape{2, 3, 4}
	var rows, want []int
	for h := range s[0] {
		for w := range s[1] {
			for c := range s[2] {
				rows = append(rows, 1000*h+100*w+10*c, 1000*h+100*w+10*c+1)
			}
		}
	}
	for c := range s[2] {
		for h := range s[0] {
			for w := range s[1] {
				want = append(want, 1000*h+100*w+10*c, 1000*h+100*w+10*c+1)
			}
		}
	}
	if got := channelsFirstRows(rows, s, 2); !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if got := channelsFirst([]int{0, 1, 2, 10, 11, 12}, model.Shape{1, 2, 3}); !slices.Equal(got, []int{0, 10, 1, 11, 2, 12}) {
		t.Errorf("channelsFirst gives %v", got)
	}
}

func TestWeightOrders(t *testing.T) {
	// KH = 1, KW = 2, I = 2, O = 3; the element is 100*tap + 10*i + o.
	in := []int{0, 1, 2, 10, 11, 12, 100, 101, 102, 110, 111, 112}
	want := []int{0, 100, 10, 110, 1, 101, 11, 111, 2, 102, 12, 112}
	if got := outputsFirst(in, model.Shape{1, 2, 2, 3}); !slices.Equal(got, want) {
		t.Errorf("outputsFirst gives %v, want %v", got, want)
	}
	if got := transposed([]int{0, 1, 2, 10, 11, 12}, 3); !slices.Equal(got, []int{0, 10, 1, 11, 2, 12}) {
		t.Errorf("transposed gives %v", got)
	}
}
