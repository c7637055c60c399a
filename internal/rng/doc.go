// Package rng draws reproducible random numbers.
//
// A Stream is named by what it is for: (seed, purpose, epoch, step, index, ...). The same name always gives the same
// numbers, on every CPU and for any number of workers, and two different names give unrelated numbers. Nothing is
// therefore saved in a checkpoint but the counters a run keeps anyway: resuming at (epoch, step) draws exactly what an
// uninterrupted run would have drawn there.
//
// The generator is Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3"
// (SC'11, doi:10.1145/2063384.2063405): a keyed bijection of a 128-bit counter. With F that bijection,
//
//	(k, h)  = F chained over purpose, the number of key words and each key word, keyed by seed
//	block b = F(counter = h<<64 | b, key = k)        four 32-bit words, b = 0, 1, 2, ...
//
// k and h have 64 bits each. Words are handed out in order; Uint64 takes two of them, low word first.
//
// Normal deviates come from Karney's exact method (arXiv:1303.6257), which compares uniform deviates and calls no
// logarithm or exponential: math.Log and its kin give other last bits where the CPU fuses multiply and add.
package rng
