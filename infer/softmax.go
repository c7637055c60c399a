package infer

import "github.com/narrow-ml/narrow/internal/kernel"

// Softmax turns the logits of one or more examples into the classes' probabilities, row by row. p may be logits. The
// model itself ends in its logits; a probability is how a loss or a person reads them.
func (e *Engine) Softmax(p, logits []float32) { kernel.Softmax(p[:len(logits)], logits, e.Classes()) }
