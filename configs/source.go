package configs

// source is the text a Config came from.
type source struct {
	name  string
	lines []string
}
