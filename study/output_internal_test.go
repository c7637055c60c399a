package study

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

var update = flag.Bool("update", false, "rewrite the golden files of this package")

// golden compares with a file of testdata, which -update writes.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (go test -update rewrites it; look at the difference first); got\n%s", name, got)
	}
}

func TestJSON(t *testing.T) {
	var b bytes.Buffer
	if err := full(t).WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	golden(t, "compare.json", b.Bytes())

	var doc struct {
		Rows []map[string]any
	}
	if err := json.Unmarshal(b.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	contract := "precision method metric mean std ci95 delta_fp32 delta_fp32plus paired_delta_ptq p_value weight_bytes " +
		"file_bytes latency_us throughput energy_nj_modelled train_seconds seeds"
	for _, row := range doc.Rows {
		for _, key := range strings.Fields(contract) {
			if _, ok := row[key]; !ok {
				t.Errorf("%v %v: key %q is missing", row["precision"], row["method"], key)
			}
		}
		if row["p_value"] != nil || row["energy_nj_modelled"] != nil {
			t.Errorf("%v %v: p_value and energy_nj_modelled must be null", row["precision"], row["method"])
		}
	}
}

func TestTable(t *testing.T) {
	res := full(t)
	res.Rows[1].Rules = true
	var b bytes.Buffer
	if err := res.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	golden(t, "table.txt", b.Bytes())
	for _, line := range strings.Split(b.String(), "\n") {
		if n := utf8.RuneCountInString(line); n > 100 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

// TestTableOfLargeNumbers has the widest texts that the columns know.
func TestTableOfLargeNumbers(t *testing.T) {
	res := resultOf(t,
		accuraciesOf{"fp32 none", []float64{10, 100, 10}}, accuraciesOf{"fp32 fp32+", []float64{10, 100, 10}},
		accuraciesOf{"w4a8 ptq", []float64{100, 10, 100}}, accuraciesOf{"w4a8 qat", []float64{10, 100, 10}},
	)
	for i := range res.Rows {
		r := &res.Rows[i]
		r.Rules, r.WeightBytes, r.FileBytes, r.LatencyMicros, r.Throughput, r.TrainSeconds = true, 123.45e6, 123.45e6, 123.4e3, 12.34e6, 5999
	}
	for _, line := range strings.Split(string(res.aligned()), "\n") {
		if n := utf8.RuneCountInString(line); n > 110 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

func TestHTML(t *testing.T) {
	for name, res := range map[string]*Result{
		"full": full(t),
		"one seed, ptq alone": resultOf(t, accuraciesOf{"fp32 none", []float64{97}},
			accuraciesOf{"int8 ptq", []float64{96}}),
		"nothing quantized": resultOf(t, accuraciesOf{"fp32 none", []float64{97}}),
	} {
		res.Config = `<script>alert("x")</script> & co`
		var b bytes.Buffer
		if err := res.WriteHTML(&b); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		page := b.String()
		if strings.Contains(page, "<script") {
			t.Errorf("%s: the config's name is not escaped", name)
		}
		if got, want := strings.Contains(page, "<svg"), len(res.precisions()) > 0; got != want {
			t.Errorf("%s: plot drawn %v, want %v", name, got, want)
		}
		for _, outside := range []string{"src=", "href=", "@import", "url("} {
			if strings.Contains(page, outside) {
				t.Errorf("%s: the page is not self-contained: it has %s", name, outside)
			}
		}
		if strings.Contains(page, inkHex) {
			t.Errorf("%s: ink was not turned into the page's text colour", name)
		}
		if n := strings.Count(page, "<tr "); n != len(res.Rows) {
			t.Errorf("%s: %d rows, want %d", name, n, len(res.Rows))
		}
		if err := wellFormed(page); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// wellFormed checks that elements nest, with HTML's void elements and entities.
func wellFormed(page string) error {
	page = strings.Replace(page, `<meta charset="utf-8">`, `<meta charset="utf-8"/>`, 1)
	page = strings.Replace(page, `initial-scale=1">`, `initial-scale=1"/>`, 1)
	d := xml.NewDecoder(strings.NewReader(page))
	d.Entity = xml.HTMLEntity
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func TestRoundTicks(t *testing.T) {
	for _, tc := range []struct {
		low, high float64
		want      string
	}{
		{86.4, 98.1, "88 90 92 94 96 98"},
		{97.0, 97.6, "97.0 97.1 97.2 97.3 97.4 97.5 97.6"},
		{-1, 100.5, "0 20 40 60 80 100"},
		{97.31, 97.37, "97.31 97.32 97.33 97.34 97.35 97.36 97.37"},
	} {
		var got []string
		for _, tick := range roundTicks(tc.low, tc.high) {
			got = append(got, tick.Label)
		}
		if strings.Join(got, " ") != tc.want {
			t.Errorf("[%v, %v]: %v, want %s", tc.low, tc.high, got, tc.want)
		}
	}
}

func TestNumbers(t *testing.T) {
	for _, tc := range []struct{ got, want string }{
		{signed(0.004), "0.00"}, {signed(-0.004), "0.00"}, {signed(-1.5), "−1.50"}, {signed(2), "+2.00"},
		{byteSize(999), "999 B"}, {byteSize(68100), "68.1 kB"}, {byteSize(2345678), "2.35 MB"},
		{micros(0.567), "0.57 µs"}, {micros(56.7), "56.7 µs"}, {micros(567), "567 µs"}, {micros(56789), "56.8 ms"},
		{thousands(12), "12"}, {thousands(1234), "1.2k"}, {thousands(123456), "123k"}, {thousands(1234567), "1.23M"},
		{seconds(0.005), "5 ms"}, {seconds(12.34), "12.3 s"}, {seconds(600), "10.0 min"},
		{count(1, "seed"), "1 seed"}, {count(3, "seed"), "3 seeds"},
	} {
		if tc.got != tc.want {
			t.Errorf("%q, want %q", tc.got, tc.want)
		}
	}
}

func TestWrapped(t *testing.T) {
	got := wrapped("- ", "  ", "one two three four", 10)
	if want := "- one two\n  three\n  four"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
