package train_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/quant"
	"github.com/narrow-ml/narrow/train"
)

// TestRunFolderOfFormats: the masters of a run folder, read again, freeze to the folder's own model file, also where scales
// belong to groups or codes have 16 bits.
func TestRunFolderOfFormats(t *testing.T) {
	for _, tt := range []struct {
		precision string
		set       []string
	}{
		{"w4a16", []string{"quant.weight.per=group", "quant.weight.group=32"}},
		{"w4a16", []string{"quant.weight.per=group", "quant.weight.range=minmax"}},
		{"w2a16", []string{"quant.weight.per=tensor"}},
		{"w3a16", []string{"quant.weight.per=group", "quant.weight.group=32", "quant.weight.rounding=stochastic"}},
		{"w3a16", []string{"quant.weight.per=group", "quant.weight.format=int3", "quant.weight.levels=even"}},
		{"w3a16", []string{"quant.weight={range: dorefa}"}},
		{"w4a4", []string{"quant.weight={range: dorefa}"}},
		{"int16", nil},
	} {
		c, d := small(t, "digits-mlp", append([]string{"train.epochs=1", "qat.epochs=0.5"}, tt.set...)...)
		p, err := quant.ParsePrecision(tt.precision)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if _, err := train.Run(t.Context(), c, d, train.RunOptions{Dir: dir, Workers: 1, Precision: &p}); err != nil {
			t.Fatalf("%s %v: %v", tt.precision, tt.set, err)
		}
		folder, err := train.OpenRun(dir)
		if err != nil {
			t.Fatal(err)
		}
		m, err := folder.Model(d)
		if err != nil {
			t.Fatalf("%s %v: %v", tt.precision, tt.set, err)
		}
		frozen, err := model.Freeze(m)
		if err != nil {
			t.Fatalf("%s %v: %v", tt.precision, tt.set, err)
		}
		var file bytes.Buffer
		if err := model.Encode(&file, frozen); err != nil {
			t.Fatal(err)
		}
		if want, err := os.ReadFile(filepath.Join(dir, train.FrozenFile)); err != nil || !bytes.Equal(file.Bytes(), want) {
			t.Errorf("%s %v: the masters freeze to another file (%v)", tt.precision, tt.set, err)
		}
	}
}

// TestFormatsRefusedBeforeTraining: what cannot be trained is an error before the float phase leaves anything behind.
func TestFormatsRefusedBeforeTraining(t *testing.T) {
	for _, tt := range []struct {
		precision, set, want string
	}{
		{"w4a8", "quant.weight.per=group", "a scale per group of inputs would need an accumulator for each group"},
		{"int16", "quant.weight.rounding=stochastic", "layers with 16-bit codes round halves to even"},
		{"int16", "quant.weight={range: dorefa}", "layers with 16-bit codes do not train through tanh"},
		{"int16", "qat.oscillation={damping: 0.1}", "qat.oscillation follows codes of at most 8 bits"},
	} {
		c, d := small(t, "digits-mlp", tt.set)
		p, err := quant.ParsePrecision(tt.precision)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		_, err = train.Run(t.Context(), c, d, train.RunOptions{Dir: dir, Workers: 1, Precision: &p})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s, %s: %v", tt.precision, tt.set, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "checkpoint")); err == nil {
			t.Errorf("%s, %s: a phase was trained first", tt.precision, tt.set)
		}
	}
}
