package configs

import "testing"

func TestEditDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"abc", "abc", 0}, {"abc", "abd", 1}, {"abc", "ab", 1}, {"abc", "xabc", 1},
		{"adma", "adam", 1}, // neighbours swapped
		{"kitten", "sitting", 3}, {"größe", "grösse", 2}, {"ca", "abc", 3},
	} {
		if got := editDistance(c.a, c.b); got != c.want {
			t.Errorf("%q to %q: %d, want %d", c.a, c.b, got, c.want)
		}
		if got := editDistance(c.b, c.a); got != c.want {
			t.Errorf("%q to %q: %d, want %d", c.b, c.a, got, c.want)
		}
	}
}

func TestNearest(t *testing.T) {
	keys := []string{"epochs", "lr", "min_lr", "weight_decay", "schedule"}
	for in, want := range map[string]string{
		"epoch": "epochs", "EPOCHS": "epochs", "l": "lr", "weightdecay": "weight_decay", "min-lr": "min_lr", "scheduler": "schedule",
		"banana": "", "": "", "decay": "",
	} {
		if got := nearest(in, keys); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
