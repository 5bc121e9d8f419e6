package suite

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"time"
)

// cut is a moment at which a VM loses power: some time after a line that a driver
// built with the tag faults prints.
type cut struct {
	line  string // the file system that it publishes on, and its mark
	delay time.Duration
}

func (c cut) String() string { return fmt.Sprintf("%v after %q", c.delay, c.line) }

// cutMarks are the marks of the driver at which the power may be cut: before, in
// and after the publication of a generation.
var cutMarks = []string{
	"image: begin to copy the current generation",
	"image: begin to test",
	"image: begin to publish",
	"image: next record written",
	"image: record written",
	"image: generation on disk",
	"image: link to be renamed made",
	"image: swapped",
	"image: done with publish",
	"image: old generation in the trash",
	"image: old generations forgotten",
}

// cuts draws moments for power cuts.
type cuts struct{ random *rand.Rand }

// newCuts says what makes it draw the same moments again: SEED in the environment.
func newCuts(out io.Writer) cuts {
	seed, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64)
	if err != nil {
		seed = rand.Uint64N(1e6)
	}
	fmt.Fprintf(out, "the moments of the power cuts are those of SEED=%d\n", seed)
	return cuts{rand.New(rand.NewPCG(seed, 0))}
}

// draw draws a moment. What is between two marks may last a millisecond or a second.
func (c cuts) draw() cut {
	on := []string{"ext4", "btrfs"}[c.random.IntN(2)]
	mark := cutMarks[c.random.IntN(len(cutMarks))]
	within := []time.Duration{time.Millisecond, 30 * time.Millisecond, time.Second}[c.random.IntN(3)]
	return cut{on + ": " + mark, time.Duration(c.random.Int64N(int64(within))).Truncate(time.Millisecond)}
}
