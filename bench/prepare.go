package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/narrow-ml/narrow/configs"
	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/export/onnx"
	"github.com/narrow-ml/narrow/internal/par"
	"github.com/narrow-ml/narrow/model"
	"github.com/narrow-ml/narrow/train"
)

// prepared is a net with all files that its workers need.
type prepared struct {
	net
	Spec                     // common to all workers
	frozen map[string]string // precision -> model file of Narrow
	onnx   map[string]string // precision -> our export
	own    string            // the float export, quantized by ONNX Runtime's tool
	ownErr *Missing          // why there is none
	notes  []string
}

const (
	// prepareSteps of float training give weights and batch-norm statistics that are not those of a fresh net.
	prepareSteps     = 100
	calibrationCount = 512
	syntheticCount   = 20000
	learningRate     = 0.001
)

// prepareTraining writes what a net is trained with into a folder.
func prepareTraining(ctx context.Context, n net, dir string, o options) (*prepared, *configs.Config, error) {
	c, err := configs.Open(n.Config)
	var unknown *configs.NotFoundError
	if errors.As(err, &unknown) {
		return nil, nil, &Missing{Reason: err.Error(), Install: fmt.Sprintf("--config %s=FILE.yaml", n.Name)}
	}
	if err != nil {
		return nil, nil, err
	}
	p := &prepared{net: n, frozen: map[string]string{}, onnx: map[string]string{}}
	data, err := p.findData(ctx, dir, o)
	if err != nil {
		return nil, nil, err
	}
	p.Spec = Spec{Net: n.Name, Config: n.Config, Data: data, LR: learningRate}
	return p, c, nil
}

// prepare trains a net for a moment and writes it in every form into a folder.
func prepare(ctx context.Context, n net, dir string, o options) (*prepared, error) {
	p, c, err := prepareTraining(ctx, n, dir, o)
	if err != nil {
		return nil, err
	}
	d, err := p.Spec.Data.load()
	if err != nil {
		return nil, err
	}
	m, err := train.NewModel(c, d, seed)
	if err != nil {
		return nil, err
	}
	if err := trainBriefly(ctx, c, m, d); err != nil {
		return nil, err
	}
	r, _, err := train.Calibrated(ctx, c, m, int8Precision, d, 1)
	if err != nil {
		return nil, err
	}
	for precision, made := range map[string]*model.Model{precFloat: m, precInt8: r.Model} {
		if err := p.write(dir, precision, made); err != nil {
			return nil, err
		}
	}
	return p, p.quantizeByORT(ctx, dir, o)
}

func trainBriefly(ctx context.Context, c *configs.Config, m *model.Model, d *datasets.Dataset) error {
	phase := train.FloatPhase(c)
	steps, err := d.Train.Steps(datasets.BatchOptions{Size: phase.Batch})
	if err != nil {
		return err
	}
	phase.EarlyStop, phase.Epochs = 0, float64(prepareSteps)/float64(steps)
	pool := par.New(1)
	defer pool.Close()
	whole := *d
	whole.Val = nil
	_, err = train.Fit(ctx, train.Job{Model: m, Data: &whole, Phase: phase, Seed: seed, Pool: pool})
	return err
}

// write freezes a model and writes it for the engine and as ONNX.
func (p *prepared) write(dir, precision string, m *model.Model) error {
	frozen, err := model.Freeze(m)
	if err != nil {
		return err
	}
	p.frozen[precision] = filepath.Join(dir, p.Name+"-"+precision+".narrow")
	if err := writeFrozen(p.frozen[precision], frozen); err != nil {
		return err
	}
	p.onnx[precision] = filepath.Join(dir, p.Name+"-"+precision+".onnx")
	f, err := os.Create(p.onnx[precision])
	if err != nil {
		return err
	}
	if err := onnx.Write(f, frozen, onnx.Options{}); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// findData writes the examples of the first data set that is on this machine, or random ones.
func (p *prepared) findData(ctx context.Context, dir string, o options) (Data, error) {
	data := Data{Codes: filepath.Join(dir, p.Name+".codes"), Labels: filepath.Join(dir, p.Name+".labels"), Shape: p.Shape}
	var set *datasets.Set
	for _, name := range p.net.Data {
		d, err := datasets.Load(ctx, name, datasets.Options{Dir: o.data})
		if err != nil || !slices.Equal(d.Train.Shape, p.Shape[:]) {
			continue
		}
		set = d.Train
		data.Name, data.Classes, data.Scale, data.Zero = d.Name, len(d.Classes), d.Scale, d.Zero
		break
	}
	if set == nil {
		set = synthetic(p.Shape)
		data.Name, data.Classes, data.Scale = "random", 10, 1.0/255
		p.notes = append(p.notes, fmt.Sprintf("%s: none of %s is on this machine: random examples and labels", p.Name, strings.Join(p.net.Data, ", ")))
	}
	data.N = set.Len()
	labels := make([]byte, data.N)
	for i, l := range set.Labels {
		labels[i] = byte(l)
	}
	return data, errors.Join(os.WriteFile(data.Codes, set.X, 0o600), os.WriteFile(data.Labels, labels, 0o600))
}

func synthetic(shape [3]int) *datasets.Set {
	rnd := rand.New(rand.NewPCG(seed, seed))
	set := &datasets.Set{Shape: shape[:], X: make([]uint8, syntheticCount*shape[0]*shape[1]*shape[2]), Labels: make([]int32, syntheticCount)}
	for i := range set.X {
		set.X[i] = uint8(rnd.Uint32())
	}
	for i := range set.Labels {
		set.Labels[i] = rnd.Int32N(10)
	}
	return set
}

// quantizeByORT runs ONNX Runtime's own quantization tool on our float export. That it is not installed is not an error.
func (p *prepared) quantizeByORT(ctx context.Context, dir string, o options) error {
	x, err := firstExamples(Spec{Data: p.Spec.Data, Batches: []int{calibrationCount}})
	if err != nil {
		return err
	}
	var raw []byte
	for _, v := range p.Spec.Data.channelsFirst(x) {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
	}
	examples, script := filepath.Join(dir, p.Name+".f32"), filepath.Join(dir, "ort_quantize.py")
	if err := errors.Join(os.WriteFile(examples, raw, 0o600), os.WriteFile(script, []byte(ortQuantizeScript), 0o600)); err != nil {
		return err
	}
	target := filepath.Join(dir, p.Name+"-int8-ort.onnx")
	shape := fmt.Sprintf("%d,%d,%d,%d", len(x)/p.Spec.Data.Elems(), p.Shape[2], p.Shape[0], p.Shape[1])
	cmd := exec.CommandContext(ctx, o.ortPython, script, p.onnx[precFloat], target, examples, shape)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		p.ownErr = &Missing{Reason: fmt.Sprintf("%s ort_quantize.py: %v: %s", o.ortPython, err, lastLine(stderr.String())), Install: ortToolsInstall}
		return ctx.Err()
	}
	ready, err := parseReady(lastLine(string(out)))
	if errors.As(err, &p.ownErr) {
		return nil
	}
	if err != nil {
		return err
	}
	p.own = target
	p.notes = append(p.notes, fmt.Sprintf("%s: the file \"ORT's own\" is from onnxruntime %s, %s", p.Name, ready.Version, ready.Detail))
	return nil
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// encode is a Spec as a worker gets it.
func (s Spec) encode() (string, error) {
	text, err := json.Marshal(s)
	return string(text), err
}

// channelsFirst are examples as float32 in the order n, c, h, w.
func (d Data) channelsFirst(x []uint8) []float32 {
	h, w, c := d.Shape[0], d.Shape[1], d.Shape[2]
	out := make([]float32, 0, len(x))
	for ; len(x) >= d.Elems(); x = x[d.Elems():] {
		for k := range c {
			for i := range h * w {
				out = append(out, float32(d.Scale*float32(int32(x[i*c+k])-d.Zero)))
			}
		}
	}
	return out
}
