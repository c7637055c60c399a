package configs

// Kind is the key the layer was written with: conv, dense, maxpool, flatten, relu, add or gap.
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
	case l.Add != nil:
		return "add"
	case l.GAP != nil:
		return "gap"
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

// inputName is what `from` calls the model's input.
const inputName = "input"

// sources are the names in the layer's `from`; none means the layer before it.
func (l *Layer) sources() []string {
	from := ""
	switch {
	case l.Conv != nil:
		from = l.Conv.From
	case l.Dense != nil:
		from = l.Dense.From
	case l.MaxPool != nil:
		from = l.MaxPool.From
	case l.Flatten != nil:
		from = l.Flatten.From
	case l.ReLU != nil:
		from = l.ReLU.From
	case l.GAP != nil:
		from = l.GAP.From
	case l.Add != nil:
		return l.Add.From
	}
	if from == "" {
		return nil
	}
	return []string{from}
}

// groups is the number of channel groups of a conv.
func (c *Conv) groups() int {
	if c.Groups == Depthwise {
		return c.Filters
	}
	return c.Groups
}

// hasWeights and hasOutput say which parts of a rule can mean something to the layer.
func (l *Layer) hasWeights() bool { return l.Conv != nil || l.Dense != nil }

func (l *Layer) hasOutput() bool { return l.hasWeights() || l.Add != nil || l.GAP != nil }

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
	case l.Add != nil:
		return &l.Add.Name
	case l.GAP != nil:
		return &l.GAP.Name
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
	case l.Add != nil:
		return l.Add
	case l.GAP != nil:
		return l.GAP
	default:
		return l.ReLU
	}
}
