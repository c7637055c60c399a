package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// sampleGroup is a group of two rounds: Narrow twice as fast by wall time, at the same CPU time; one peer is missing.
func sampleGroup() (group, []*entry) {
	g := group{net: &prepared{net: net{Name: "cnn"}}, task: taskInfer, threads: 2, batches: []int{1, 64}}
	return g, []*entry{
		{contestant: contestant{name: nameNarrow, precision: precInt8}, ready: Ready{Version: "go", Detail: "d", Classes: []int{1, 2, 3, 4}},
			samples: map[int][]Sample{1: {{100, 1, 1, 10}, {100, 1, 1, 20}}, 64: {{6400, 1, 2, 600}, {6400, 2, 4, 1200}}}},
		{contestant: contestant{name: nameORT, precision: precInt8}, ready: Ready{Version: "1.30", Detail: "e", Classes: []int{1, 2, 0, 4}},
			samples: map[int][]Sample{1: {{100, 1, 1, 20}, {100, 1, 1, 40}}, 64: {{3200, 1, 1, 1200}, {3200, 2, 2, 2400}}}},
		{contestant: contestant{name: nameTorch, precision: precInt8, missing: &Missing{"no torch", "apt"}}, samples: map[int][]Sample{}},
	}
}

func TestRows(t *testing.T) {
	got := rows(sampleGroup())
	if len(got) != 6 {
		t.Fatalf("%d rows, want 3 contestants at 2 batch sizes", len(got))
	}
	ours, peer := got[0], got[1]
	if ours.Unit != unitLatency || *ours.Wall != (Spread{15, 10, 20}) || ours.Ratio != nil {
		t.Errorf("latency of narrow: %s %v, ratio %v", ours.Unit, ours.Wall, ours.Ratio)
	}
	// A latency of half the peer's is a speed of twice the peer's.
	if *peer.Ratio != (Spread{2, 2, 2}) {
		t.Errorf("latency ratio %v, want 2: above 1 is faster", *peer.Ratio)
	}
	if peer.Agree == nil || *peer.Agree != 0.75 {
		t.Errorf("agreement %v, want 0.75", peer.Agree)
	}
	ours, peer = got[3], got[4]
	if ours.Unit != unitRate || *ours.Wall != (Spread{4800, 3200, 6400}) || *ours.CPU != (Spread{2400, 1600, 3200}) {
		t.Errorf("throughput of narrow: %s wall %v CPU %v", ours.Unit, ours.Wall, ours.CPU)
	}
	if *peer.Ratio != (Spread{2, 2, 2}) || *peer.CPURatio != (Spread{1, 1, 1}) {
		t.Errorf("throughput ratios %v and %v, want 2 by wall and 1 by CPU time", *peer.Ratio, *peer.CPURatio)
	}
	if got[2].Missing == nil || got[2].Wall != nil {
		t.Errorf("a missing peer must stay in the table, without numbers: %+v", got[2])
	}
}

func TestReportForms(t *testing.T) {
	r := Report{Host: Host{CPU: "test CPU", Rounds: 2}, Rows: append(rows(sampleGroup()), Row{Net: "mbnet", Contestant: nameNarrow, Missing: &Missing{"no preset", "--config"}})}
	var table, markdown, text bytes.Buffer
	for _, err := range []error{r.WriteTable(&table), r.WriteMarkdown(&markdown), r.WriteJSON(&text)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"test CPU", "2.00 (2.00-2.00)", "15.0 (10.0-20.0) us", "4800 (3200-6400) img/s", "75 %",
		"missing: pytorch: cnn infer int8: no torch (install: apt)", "missing: narrow: mbnet: no preset (install: --config)", "onnxruntime 1.30: cnn infer int8 on 2: e"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, table.String())
		}
		if !strings.Contains(markdown.String(), want) {
			t.Errorf("the Markdown lacks %q:\n%s", want, markdown.String())
		}
	}
	for line := range strings.Lines(markdown.String()) {
		if strings.HasPrefix(line, "|") && strings.Count(line, "|") != len(titles())+1 {
			t.Errorf("%d cells, want %d: %s", strings.Count(line, "|")-1, len(titles()), line)
		}
	}
	var back Report
	if err := json.Unmarshal(text.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if len(back.Rows) != len(r.Rows) || *back.Rows[1].Ratio != *r.Rows[1].Ratio || len(back.Rows[1].Samples) != 2 {
		t.Errorf("the JSON lost rows, ratios or samples:\n%s", text.String())
	}
}

func TestWaiting(t *testing.T) {
	r := Report{Rows: []Row{
		{Threads: 1, Samples: []Sample{{1, 10, 9, 1}, {1, 10, 5, 1}}},
		{Threads: 2, Samples: []Sample{{1, 10, 0, 1}}}, // two threads: wall time says nothing
	}}
	if share, ok := r.waiting(); !ok || share != 0.5 {
		t.Errorf("%v %v, want 0.5", share, ok)
	}
	if _, ok := (&Report{}).waiting(); ok {
		t.Error("no samples, but a share of their time")
	}
}
