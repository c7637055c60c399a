package configs

import (
	"github.com/narrow-ml/narrow/quant"
)

// Config is one experiment with every default filled in.
type Config struct {
	Version int
	Name    string
	Seed    uint64
	Dataset Dataset
	Model   []Layer
	Train   Train
	Quant   *Quant // nil: no quant section; QuantConfig then uses the defaults of the precision
	QAT     *QAT   // nil: no quantization-aware training
	Compare Compare

	src *source // where the values came from, for messages and Set
}

// Dataset names the data and how they are cut.
type Dataset struct {
	Name        string
	Batch       int
	ValFraction float64 // of the training examples, in [0, 0.5]
	Center      bool    // bytes stand for values from -1 to 1 and not from 0 to 1
	Limit       int     // use the first so many examples of the training and of the test split; 0 = all
}

// Layer is one entry of the model list. Exactly one of the pointers is set.
type Layer struct {
	Conv    *Conv
	Dense   *Dense
	MaxPool *MaxPool
	Flatten *Flatten
	ReLU    *ReLU
	Add     *Add
	GAP     *GAP

	origin string // file:line
}

// From, of any layer, is the name of the layer it reads; empty means the one before it, and "input" the model's input.

// Conv is a 2-D convolution with what follows it.
type Conv struct {
	Name    string
	From    string
	Filters int
	Kernel  [2]int // height, width
	Stride  [2]int
	Pad     [4]int // top, left, bottom, right
	Groups  int    // channel groups; Depthwise: one for each channel
	Bias    bool
	Norm    string // batch, none
	Act     string // relu, relu6, none

	Dropout  float64 // part of the input that training sets to zero
	Eps      float64 // norm: batch; added to the variance
	Momentum float64 // norm: batch; weight of the new batch in the running statistics
}

// Depthwise as Conv.Groups gives each input channel a filter of its own; there are as many filters as input channels.
const Depthwise = 0

// Dense is a fully connected layer with what follows it.
type Dense struct {
	Name  string
	From  string
	Units int
	Bias  bool
	Norm  string
	Act   string

	Eps, Momentum float64 // as for Conv
	Dropout       float64 // part of the input that training sets to zero
}

// MaxPool is the maximum over windows.
type MaxPool struct {
	Name   string
	From   string
	Size   [2]int
	Stride [2]int
	Pad    [4]int
}

// Flatten turns height, width and channels into one axis.
type Flatten struct{ Name, From string }

// ReLU is max(x, 0) on its own; `act: relu` of a layer is the usual form.
type ReLU struct {
	Name string
	From string
	Cap  float64 // upper limit; 0 = none, 6 is ReLU6
}

// Add is the sum of two layers of one shape, with what follows it.
type Add struct {
	Name string
	From []string // two
	Act  string   // relu, relu6, none
}

// GAP is global average pooling: the mean of each channel over height and width.
type GAP struct{ Name, From string }

// Solver says how parameters are updated. Fields that the optimizer or the schedule has no use for are zero.
type Solver struct {
	Optimizer    string // adam, adamw, sgd
	LR           float64
	Momentum     float64 // sgd
	Nesterov     bool    // sgd
	WeightDecay  float64 // L2 in sgd and adam, decoupled in adamw
	Beta1, Beta2 float64 // adam, adamw
	Eps          float64 // adam, adamw
	Schedule     string  // constant, step, cosine
	WarmupSteps  int     // linear from 0 to LR
	StepEvery    int     // step: epochs between two drops
	StepGamma    float64 // step: factor of a drop
	MinLR        float64 // cosine: where it ends
}

// Train says how float training runs.
type Train struct {
	Solver
	Epochs         int
	Loss           string  // cross_entropy, mse, smooth_l1, bce, squared_hinge
	LabelSmoothing float64 // cross_entropy
	EarlyStop      int     // epochs without gain on the validation split before stopping; 0 = off
	InitRange      float64 // weights start uniform in [-InitRange, InitRange]; 0 = 1/sqrt(inputs of a unit)
	WeightClip     float64 // weights are limited to [-WeightClip, WeightClip] after every step; 0 = not
	TrackTest      bool    // score the test split after every epoch; the scores steer nothing
}

// Quant says how tensors are quantized.
type Quant struct {
	Target      quant.Target
	Weight, Act TensorQuant // complete
	Input       string      // bytes: the input's bytes are its codes; act: it has the grid of activations
	Rules       []Rule      // first match wins
	Calibration Calibration
}

// TensorQuant is the part of a quant.Spec that a configuration chooses. In a rule a zero field keeps the default. Float
// formats have no scheme, granularity or range.
type TensorQuant struct {
	Format quant.Format
	Scheme quant.Scheme
	Per    quant.Granularity
	Range  quant.Range

	Levels    string          // full, narrow, even
	Estimator quant.Estimator // binary formats
	Max       float64         // range constant
	Group     int             // rows that share a scale, with per: group
	Rounding  quant.Rounding  // of weights
}

// Rule overrides the defaults for the layers whose name matches a glob pattern. Act is the layer's output.
type Rule struct {
	Layer       string
	Weight, Act *TensorQuant // nil: keep the default

	origin string
}

// Calibration says how post-training quantization finds ranges.
type Calibration struct {
	Examples   int
	Method     string  // minmax, percentile, mse, kl, histogram; auto: the best of the first four on the validation split
	Percentile float64 // of the absolute values; for the methods percentile and auto

	Equalize       bool   // channels of neighbouring layers are made alike before calibration
	BiasCorrection bool   // biases take back the mean shift of each layer's output
	Rounding       string // of weights: nearest, adaround, gptq
}

// QAT says how quantization-aware training runs; the loss is that of Train.
type QAT struct {
	Solver
	Schedules
	Start         string            // ptq: from the calibrated model; scratch: from random weights, with no float training before
	Epochs        float64           // fractions allowed
	ScaleLR       float64           // learning rate of learned scales (range: lsq)
	ScaleStep     quant.ScaleStep   // what a learned scale's steps are taken in
	ScaleGradient quant.ScaleFactor // of learned scales
	PACTDecay     float64           // of learned limits (range: pact)
	Backward      string            // float, or int16: gradients of integer layers are rounded to 16 bits and multiplied as integers
	Fuse          bool              // one graph op for a layer with all that follows it, in the float phases too; same results, faster

	pact bool // some range is pact
}

// Compare says what the compare command runs. The fp32 row is always run, listed or not.
type Compare struct {
	Precisions []string // as quant.ParsePrecision reads them
	Methods    []string // ptq, qat
	Seeds      int
	Split      string // what models are scored on: test; validation while settings are still being chosen
	Variants   []Variant
}
