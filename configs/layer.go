package configs

// Kind is the key the layer was written with: conv, dense, maxpool, flatten or relu.
func (l *Layer) Kind() string {
	switch {
	case l.Conv != nil:
		return "conv"
	case l.Dense != nil:
		return "dense"
	case l.MaxPool != nil:
		return "maxpool"
	case l.Flatten != nil:
		return "flatten"
	case l.ReLU != nil:
		return "relu"
	}
	return ""
}

// Name is the layer's name, given or made.
func (l *Layer) Name() string {
	if p := l.namePointer(); p != nil {
		return *p
	}
	return ""
}

// Origin is where the layer was written: file:line.
func (l *Layer) Origin() string { return l.origin }

func (l *Layer) namePointer() *string {
	switch {
	case l.Conv != nil:
		return &l.Conv.Name
	case l.Dense != nil:
		return &l.Dense.Name
	case l.MaxPool != nil:
		return &l.MaxPool.Name
	case l.Flatten != nil:
		return &l.Flatten.Name
	case l.ReLU != nil:
		return &l.ReLU.Name
	}
	return nil
}

// body is the layer's settings as a section.
func (l *Layer) body() section {
	switch {
	case l.Conv != nil:
		return l.Conv
	case l.Dense != nil:
		return l.Dense
	case l.MaxPool != nil:
		return l.MaxPool
	case l.Flatten != nil:
		return l.Flatten
	default:
		return l.ReLU
	}
}
