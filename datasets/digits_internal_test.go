package datasets

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"strings"
	"testing"
)

// The embedded rows are the published ones: the sums are those of embedded/NOTICE.md.
func TestEmbeddedDigitsAreThePublishedFiles(t *testing.T) {
	for name, gz := range map[string][]byte{"optdigits.tra": digitsTrain, "optdigits.tes": digitsTest} {
		z, err := gzip.NewReader(bytes.NewReader(gz))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		if line := fmt.Sprintf("| %s | %s |", name, sum(raw)); !strings.Contains(digitsNotice, line) {
			t.Errorf("the notice has no line %s", line)
		}
	}
	if !strings.Contains(digitsNotice, "CC BY 4.0") {
		t.Error("the notice does not name the licence")
	}
}

func digitsRow(first, label string) string {
	return first + strings.Repeat(",0", 63) + "," + label + "\n"
}

func TestReadDigitsRefuses(t *testing.T) {
	good := digitsRow("16", "9")
	tests := []struct{ name, in, want string }{
		{"short row", "1,2,3\n", "digits csv: row 1"},
		{"long row", strings.TrimSpace(good) + ",1\n", "digits csv: row 1"},
		{"pixel", good + digitsRow("17", "9"), `row 2: column 1: "17" is not a whole number from 0 to 16`},
		{"label high", good + digitsRow("0", "10"), `row 2: label "10", want 0 to 9`},
		{"label none", digitsRow("0", ""), `row 1: label "", want 0 to 9`},
		{"label negative", digitsRow("0", "-1"), `row 1: label "-1"`},
		{"too many", good + good + good, "more than 2 rows"},
	}
	for _, tt := range tests {
		if _, err := readDigits(strings.NewReader(tt.in), 2); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
	}
	if _, err := embeddedDigits(digitsTest[:1000], digitsTestRows); err == nil {
		t.Error("a gzip file cut short was read")
	}
	if _, err := embeddedDigits(digitsTest, digitsTestRows+1); err == nil || !strings.Contains(err.Error(), "1797 rows, want 1798") {
		t.Errorf("a missing row: error %v", err)
	}
}

func FuzzReadDigits(f *testing.F) {
	f.Add(digitsRow("16", "9"))
	f.Add(digitsRow("0", "0") + digitsRow("17", "3"))
	f.Add("\"1\n\",2")
	f.Fuzz(func(t *testing.T, in string) {
		s, err := readDigits(strings.NewReader(in), 4)
		if err != nil {
			return
		}
		if s.Len() > 4 {
			t.Fatalf("%d rows, at most 4 were asked for", s.Len())
		}
		if err := s.check(digitsClasses, digitsMax); err != nil {
			t.Fatal(err)
		}
	})
}
