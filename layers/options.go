package layers

import (
	"fmt"
	"strings"

	"github.com/narrow-ml/narrow/internal/par"
	"github.com/narrow-ml/narrow/quant"
)

// Options configure [Build].
type Options struct {
	Batch int       // rows of the graph, at least 1
	Train bool      // with gradients; batch norm and ranges follow the batches
	Fuse  bool      // in a training graph: one op for a layer with all that follows it; the results are the same, to the bit
	Loss  Loss      // the zero value is cross-entropy
	Pool  *par.Pool // workers; nil means the caller's goroutine alone. Build does not close it.

	Backward    string            // of quantized conv and dense layers, one of Backwards; "" is float
	ScaleFactor quant.ScaleFactor // of the gradients of learned scales; the zero value is that of LSQ
	PACTDecay   float64           // of the limits of range method pact
	Seed        uint64            // of stochastic rounding and dropout
}

// Loss says what is minimised. All losses compare the logits of an example with its class: cross_entropy after a
// softmax, the others element by element with the one-hot vector of the class. The result is the mean over the examples
// (and, for the others, over the classes too).
type Loss struct {
	Kind      string  // one of LossKinds; "" is cross_entropy
	Smoothing float64 // label smoothing of cross_entropy, in [0, 1)
	Distill   Distill // of cross_entropy: the labels and a teacher's logits
}

// Distill says how much a teacher's logits count (arXiv:1503.02531), which [Net.Teach] gives before each run. With weight w
// and temperature T the loss is
//
//	(1-w)*cross_entropy + w*T^2*KL(softmax(teacher/T) || softmax(logits/T))
//
// The zero value has no teacher.
type Distill struct {
	Weight      float64 // in [0, 1]
	Temperature float64 // above 0
}

// The kinds of loss.
const (
	CrossEntropy = "cross_entropy"
	MSE          = "mse"
	SmoothL1     = "smooth_l1"     // with beta 1
	BCE          = "bce"           // binary cross-entropy of each logit's sigmoid
	SquaredHinge = "squared_hinge" // max(0, 1 - t*x)^2 with t = 1 for the class and -1 for the others
)

// LossKinds lists the kinds of loss.
func LossKinds() []string { return []string{CrossEntropy, MSE, SmoothL1, BCE, SquaredHinge} }

func (l Loss) validate() error {
	if d := l.Distill; d != (Distill{}) {
		if !(d.Weight > 0 && d.Weight <= 1) || !(d.Temperature > 0) {
			return fmt.Errorf("distillation with weight %v and temperature %v: the weight must be above 0 and at most 1, the temperature above 0", d.Weight, d.Temperature)
		}
		if l.Kind != "" && l.Kind != CrossEntropy {
			return fmt.Errorf("distillation belongs to %s, not to %s", CrossEntropy, l.Kind)
		}
	}
	switch l.Kind {
	case "", CrossEntropy:
		if !(l.Smoothing >= 0 && l.Smoothing < 1) {
			return fmt.Errorf("label smoothing %v must be in [0, 1)", l.Smoothing)
		}
		return nil
	case MSE, SmoothL1, BCE, SquaredHinge:
		if l.Smoothing != 0 {
			return fmt.Errorf("label smoothing belongs to %s, not to %s", CrossEntropy, l.Kind)
		}
		return nil
	}
	return fmt.Errorf("unknown loss %q (allowed: %s)", l.Kind, strings.Join(LossKinds(), ", "))
}

// Phase freezes parts of a training graph from the next step on.
type Phase struct {
	FreezeNorm   bool // batch norm uses its running statistics and leaves them
	FreezeRanges bool // activation ranges stay
	NoDropout    bool // dropout lets everything through

	Step uint64 // of training, counted from 1: names the numbers of dropout and of stochastic rounding; 0 rounds to nearest

	NormWeight float64 // of a batch in batch norm's running statistics; 0: each layer's own momentum
}

// Result is what one run says about its rows.
type Result struct {
	Loss    float64 // mean over the rows that have a label
	Correct int     // rows whose largest logit, the first of equals, is the label's
	N       int     // rows that have a label
}

// Trainable is one tensor that an optimizer updates. Value is the model's own memory; Grad holds the gradient of the
// last run and is overwritten by the next.
type Trainable struct {
	Name  string
	Role  string // of package model, or the kind of learned number
	Value []float32
	Grad  []float32

	Learned quant.Learned // of a quantizer; 0 for a parameter of the network
	Span    float32       // of a learned number: how far it may move, highest minus lowest code; it belongs to offsets
}

// Codes are the integer codes of one weight: w is coded as q with scale[c]*q, c the output channel.
type Codes struct {
	Name  string // as in the model's parameters and in [Trainable]
	Codes []int8
	Scale []float32 // one for each output channel, the last axis
	Spec  quant.Spec
}
