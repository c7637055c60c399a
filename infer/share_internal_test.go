package infer

// ShareAlways makes an engine share any batch of two examples or more, so that tests need no large models.
func (e *Engine) ShareAlways() *Engine {
	e.grain = 1
	return e
}

// Buffers is the number of buffers the engine plans for one pass.
func (e *Engine) Buffers() int { return len(e.prog.codes) + len(e.prog.values) }
