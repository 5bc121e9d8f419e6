package suite

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
)

// SoakPower cuts a VM's power in the middle of publications, a number of times, ""  for
// 50, or until an image is broken. Each boot looks at what the last cut left and is
// the scene of the next.
func SoakPower(number string) func(*Suite, context.Context) error {
	return func(s *Suite, ctx context.Context) error {
		often, err := strconv.Atoi(cmp.Or(number, "50"))
		if err != nil {
			return fmt.Errorf("the number of power cuts: %w", err)
		}
		options, remove, err := s.vmOptions(ctx, "")
		if err != nil {
			return err
		}
		defer remove()
		return s.phase(fmt.Sprintf("vm: %d power cuts", often), func() error {
			cuts, last := newCuts(s.Out), cut{}
			runs := []string{untilCut}
			for n := 1; n <= often; n++ {
				next := cuts.draw()
				fmt.Fprintf(s.Out, "cut %d of %d: %s\n", n, often, next)
				if err := s.untilPowerCut(ctx, options, last, next, runs...); err != nil {
					return err
				}
				last, runs = next, []string{checkCut, untilCut}
			}
			return s.inVM(ctx, options, last, checkCut)
		})
	}
}
