package infer

import "time"

// LayerTime is how long an operation took.
type LayerTime struct {
	Name, Kernel string
	Best         time.Duration
}

// LayerTimes runs n examples rounds times on one worker and returns the best time of each operation.
func (e *Engine) LayerTimes(x []uint8, n, rounds int) ([]LayerTime, error) {
	w := &worker{logits: make([]float32, n*e.Classes()), x: x[:n*e.InputSize()]}
	w.bufs.reserve(e.prog, n)
	times := make([]LayerTime, len(e.prog.steps))
	for round := range rounds {
		for i, s := range e.prog.steps {
			if s.op == nil {
				continue
			}
			began := time.Now()
			if err := s.op.run(w, n); err != nil {
				return nil, err
			}
			took := time.Since(began)
			if t := &times[i]; round == 0 || took < t.Best {
				*t = LayerTime{Name: s.out.name, Kernel: s.op.kernel(), Best: took}
			}
		}
	}
	return times, nil
}
