// Package par runs a loop over a fixed number of shards on a few workers.
//
// The cut of [0, n) into shards depends on n alone, never on the number of
// workers, so a reduction that keeps one partial result per shard and adds
// them in shard order gives the same bits for any --workers.
//
// n is the length of the loop, Shards = 8 the largest number of pieces, W the
// number of workers including the caller.
package par
