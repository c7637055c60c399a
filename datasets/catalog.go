package datasets

import (
	"fmt"
	"strings"
)

// entry is what is known of one data set before any of its bytes is seen.
type entry struct {
	name    string
	licence string
	notice  string // text that must accompany the data
	classes []string
	shape   []int // of one example
	scale   float32
	maxCode uint8
	train   int // examples
	test    int
	format  format
	files   []file   // idx: train images, train labels, test images, test labels; cifar: the archive; none when embedded
	urls    []string // folders that serve the files, tried in order
	folders []string // where other software keeps them; "$GOMODCACHE/" in front means the Go module cache
	hint    string   // another way of getting the files
}

// format is how a data set's files are read.
type format uint8

const (
	idxFiles format = iota
	cifarArchive
)

// file is one published file. Sums are SHA-256.
type file struct {
	name  string // with .gz, as published
	bytes int64  // unpacked; at most, where only the sum of the .gz is published
	raw   string // sum of the unpacked bytes, or empty when only that of the .gz is published
	gz    string // sum of the published .gz, or empty when only the unpacked sum is published
}

const embedded = "embedded"

// catalog lists the known data sets in the order Names gives. It is a function so that nobody can change it.
func catalog() []entry {
	return []entry{
		{
			name:    "digits",
			licence: "CC BY 4.0 (UCI Machine Learning Repository, doi:10.24432/C50P49)",
			notice:  digitsNotice,
			classes: numerals(),
			shape:   []int{digitsSide, digitsSide, 1},
			scale:   1.0 / digitsMax,
			maxCode: digitsMax,
			train:   digitsTrainRows,
			test:    digitsTestRows,
		},
		{
			name:    "mnist",
			licence: "CC BY-SA 3.0 (Y. LeCun, C. Cortes)",
			classes: numerals(),
			shape:   []int{28, 28, 1},
			scale:   float32(1 / 255.0),
			maxCode: 255,
			train:   60000,
			test:    10000,
			// The sums of the .gz are the published ones; those of the unpacked bytes were computed from the files of
			// the Go module below, whose .gz have the published sums.
			files: []file{
				{"train-images-idx3-ubyte.gz", 47040016,
					"ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
					"440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"},
				{"train-labels-idx1-ubyte.gz", 60008,
					"65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
					"3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"},
				{"t10k-images-idx3-ubyte.gz", 7840016,
					"0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
					"8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"},
				{"t10k-labels-idx1-ubyte.gz", 10008,
					"ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
					"f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"},
			},
			urls: []string{
				"https://ossci-datasets.s3.amazonaws.com/mnist/",
				"https://storage.googleapis.com/cvdf-datasets/mnist/",
			},
			folders: []string{"$GOMODCACHE/github.com/petar/!go!m!n!i!s!t@v0.0.0-20150320212226-2fbe10d0fa63/data"},
		},
		{
			name:    "fashion-mnist",
			licence: "MIT (2017 Zalando SE)",
			classes: []string{"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"},
			shape:   []int{28, 28, 1},
			scale:   float32(1 / 255.0),
			maxCode: 255,
			train:   60000,
			test:    10000,
			// Debian compresses the files again: only the sums of the unpacked bytes hold for both copies.
			files: []file{
				{"train-images-idx3-ubyte.gz", 47040016, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888", ""},
				{"train-labels-idx1-ubyte.gz", 60008, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9", ""},
				{"t10k-images-idx3-ubyte.gz", 7840016, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b", ""},
				{"t10k-labels-idx1-ubyte.gz", 10008, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34", ""},
			},
			urls:    []string{"http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"}, // no TLS there: the sums protect
			folders: []string{"/usr/share/datasets/fashion-mnist"},
			hint:    "on Debian and Ubuntu: apt-get install dataset-fashion-mnist",
		},
		{
			name:    "cifar10",
			licence: "none stated; cite A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
			classes: []string{"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"},
			shape:   []int{cifarSide, cifarSide, 3},
			scale:   float32(1 / 255.0),
			maxCode: 255,
			train:   50000,
			test:    10000,
			format:  cifarArchive,
			files: []file{{"cifar-10-binary.tar.gz", 185_000_000, "",
				"c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"}},
			urls: []string{"https://www.cs.toronto.edu/~kriz/"},
			hint: "or put pictures of 32 x 32 pixels there, train/CLASS/NAME.jpg and test/CLASS/NAME.jpg",
		},
	}
}

func numerals() []string { return strings.Split("0123456789", "") }

// bytes is the size of the codes and labels, one byte each.
func (e *entry) bytes() int64 {
	n := int64(1)
	for _, d := range e.shape {
		n *= int64(d)
	}
	return int64(e.train+e.test) * (n + 1)
}

// Describe returns what is known of a data set before any of its files is read: all of a Dataset but its rows. Train and
// Test are empty sets of the right shape, and there is no Val.
func Describe(name string) (*Dataset, error) {
	e, err := find(catalog(), name)
	if err != nil {
		return nil, err
	}
	return &Dataset{
		Name: e.name, Classes: e.classes, Scale: e.scale, MaxCode: e.maxCode, Licence: e.licence,
		Train: &Set{Shape: e.shape}, Test: &Set{Shape: e.shape},
	}, nil
}

// Sizes is the number of training and of test examples of a data set, before a validation split is cut off.
func Sizes(name string) (train, test int, err error) {
	e, err := find(catalog(), name)
	if err != nil {
		return 0, 0, err
	}
	return e.train, e.test, nil
}

// Names returns the names Load knows.
func Names() []string {
	var names []string
	for _, e := range catalog() {
		names = append(names, e.name)
	}
	return names
}

// UnknownError says that there is no data set of that name.
type UnknownError struct {
	Name  string
	Known []string
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("no data set is called %q (known: %s)", e.Name, strings.Join(e.Known, ", "))
}

func find(entries []entry, name string) (*entry, error) {
	var known []string
	for i := range entries {
		if entries[i].name == name {
			return &entries[i], nil
		}
		known = append(known, entries[i].name)
	}
	return nil, &UnknownError{Name: name, Known: known}
}
