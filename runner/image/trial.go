package image

import (
	"context"
	"fmt"
	"strings"
)

// shownOfTest is how many lines of a failed test's output its error has.
const shownOfTest = 3

// test asks whether jobs can run on the generation. What it prints goes to the
// log, and the end of that into the error.
func (b *build) test(ctx context.Context) error {
	if b.store.Test == nil {
		return nil
	}
	return b.step(ctx, "test", func() error {
		err := b.store.Test(ctx, b.image, b.generation, b.log)
		if lines := b.log.last(shownOfTest); err != nil && lines != nil {
			err = fmt.Errorf("%w: %s", err, strings.Join(lines, "; "))
		}
		return err
	})
}
