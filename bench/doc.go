// Command bench measures Narrow beside PyTorch and ONNX Runtime, in one run, on one machine.
//
//	go -C bench run . --nets mlp,cnn --threads 1,2 --rounds 7 --seconds 2 --json results.json
//
// Every contestant is a process of its own: this program again (Narrow, and ONNX Runtime through its C API), or Python
// (PyTorch). The driver starts all contestants of a net on the same cores and lets them take turns, so that a change of
// the machine's speed meets all of them:
//
//	round 1: narrow  torch  ort ...     round 2: ort  torch  narrow ...     round 3: torch  ort  narrow ...
//
// # Protocol
//
// A worker gets a [Spec] as JSON in its last argument and answers on standard output, one line each:
//
//	ready {"version": ..., "detail": ...}   after loading
//	missing {"reason": ..., "install": ...} instead, if what it needs is not installed
//	failed MESSAGE                          instead, or at any time: the worker ends
//	run BATCH SECONDS                       the driver asks for about SECONDS of work in batches of BATCH
//	done COUNT WALL CPU P50                 examples, seconds, seconds of CPU of the process, median of a call in microseconds
//
// The end of standard input ends a worker.
//
// # Letters
//
//	rate   examples per second of wall time or of CPU time
//	p50    median duration of one call with one example, in microseconds
//	ratio  speed of Narrow / speed of the peer within one round; above 1 Narrow is faster
package main
