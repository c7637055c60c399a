package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/infer"
	"github.com/narrow-ml/narrow/model"
)

// prediction is one answer of predict.
type prediction struct {
	Input      string    `json:"input"`
	Label      string    `json:"label"`
	Class      int       `json:"class"`
	Confidence float32   `json:"confidence"` // probability of the label
	Second     string    `json:"second"`
	Logits     []float32 `json:"logits"`
}

func (a *app) predictCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "predict RUN|FILE INPUT...",
		Short: "Label images (png, jpeg, gif) and rows of csv files",
		Args:  arguments(2, -1, "a RUN or a FILE, and one INPUT or more"),
		RunE:  func(_ *cobra.Command, args []string) error { return a.predict(args[0], args[1:], asJSON) },
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return c
}

func (a *app) predict(name string, inputs []string, asJSON bool) error {
	s, err := openSubject(name)
	if err != nil {
		return err
	}
	e, err := infer.Compile(s.frozen, infer.Options{Workers: 1, MaxBatch: 1})
	if err != nil {
		return err
	}
	in := s.frozen.Inputs[0]
	out := []prediction{}
	for _, path := range inputs {
		examples, err := readInput(path, in)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		for i, x := range examples {
			label := path
			if len(examples) > 1 {
				label = fmt.Sprintf("%s:%d", path, i+1)
			}
			logits := make([]float32, e.Classes())
			if err := e.Run(logits, x, 1); err != nil {
				return fmt.Errorf("%s: %w", label, err)
			}
			p := newPrediction(label, logits, in.Labels)
			probabilities := make([]float32, len(logits))
			e.Softmax(probabilities, logits)
			p.Confidence = probabilities[p.Class]
			out = append(out, p)
		}
	}
	if asJSON {
		return a.writeJSON(out)
	}
	t := newTable("input", "label", ">confidence", "second")
	for _, p := range out {
		t.add(p.Input, p.Label, fmt.Sprintf("%.1f %%", 100*p.Confidence), p.Second)
	}
	return t.write(a.stdout)
}

func newPrediction(input string, logits []float32, labels []string) prediction {
	name := func(class int) string {
		if class < 0 {
			return ""
		}
		if class < len(labels) {
			return labels[class]
		}
		return fmt.Sprint(class)
	}
	p := prediction{Input: input, Class: infer.ArgMax(logits), Logits: logits}
	second := -1
	for i, v := range logits {
		if i != p.Class && (second < 0 || v > logits[second]) {
			second = i
		}
	}
	p.Label, p.Second = name(p.Class), name(second)
	return p
}

// readInput reads the examples of one file as codes of the model's input: one per image, one per csv row.
func readInput(path string, in model.Input) ([][]uint8, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	defer f.Close()
	largest := largestCode(in)
	switch strings.ToLower(filepath.Ext(path)) {
	case ".csv":
		return readRows(f, in.Shape, largest)
	case ".png", ".jpg", ".jpeg", ".gif":
		codes, err := datasets.DecodeImage(f, in.Shape)
		if err != nil {
			return nil, err
		}
		datasets.Rescale(codes, largest)
		return [][]uint8{codes}, nil
	case ".wav", ".txt":
		return nil, usagef("sound and text are not supported by this version (allowed: .png, .jpg, .gif, .csv)")
	}
	return nil, usagef("inputs are told by their extension (allowed: .png, .jpg, .gif, .csv)")
}

// largestCode is where an input's codes end: at the value 1 above the zero point, or at 255. All data sets of this
// version are scaled so.
func largestCode(in model.Input) uint8 {
	top := in.Zero
	for top < 255 && in.Scale*float32(top-in.Zero) < 1 {
		top++
	}
	return uint8(top)
}

func readRows(r io.Reader, shape []int, largest uint8) ([][]uint8, error) {
	in := csv.NewReader(r)
	in.ReuseRecord = true
	var out [][]uint8
	for {
		fields, err := in.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		line, _ := in.FieldPos(0)
		codes, err := datasets.ParseRow(fields, shape, largest)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		out = append(out, codes)
	}
	if len(out) == 0 {
		return nil, errors.New("the file has no rows")
	}
	return out, nil
}
