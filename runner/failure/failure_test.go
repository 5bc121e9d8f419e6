package failure

import (
	"errors"
	"fmt"
	"io"
	"testing"
)

func TestAReasonStaysWithItsErrorAndTheNearestOneCounts(t *testing.T) {
	near := Because(OOM, io.EOF)
	far := Because(MachineDied, fmt.Errorf("machine 7: %w", near))
	if Of(far) != OOM || far.Error() != "machine 7: EOF" || !errors.Is(far, io.EOF) {
		t.Errorf("%q: %v", Of(far), far)
	}
	if got := Of(errors.Join(io.EOF, near)); got != OOM {
		t.Errorf("of joined errors: %q", got)
	}
	if Because(Bus, nil) != nil || Of(nil) != "" || Of(io.EOF) != "" {
		t.Error("nil, or an error without a reason, has one")
	}
}
