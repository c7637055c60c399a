// Package durable writes files and folders that a crash leaves either as they were or complete, never half written.
//
// The order is the usual one: write under a temporary name in the same folder, fsync, rename over the final name, fsync
// the folder. Whoever opens the final name sees the old content or all of the new; a temporary file that a power cut
// leaves behind is hidden (its name starts with a dot and holds ".tmp-") and is never read.
package durable
