package limits

import (
	"os"
	"strings"
	"testing"
)

func TestADiskIsFullWhenItsMachineIsNearItsLimit(t *testing.T) {
	for _, c := range []struct {
		bytes, files uint64
		want         string
	}{
		{94, 3, ""},
		{95, 3, "as much"},
		{3, 99, "as many files"},
	} {
		full := Disk("bookworm", 1<<30, c.bytes, c.files)
		if (full == nil) != (c.want == "") || full != nil && !strings.Contains(full.String(), c.want+" as image bookworm allows: ") {
			t.Errorf("%+v: %v", c, full)
		}
	}
}

func TestAGroupThatIsNotThereRanOutOfNothing(t *testing.T) {
	w := Begin("/no-such-group")
	defer w.Close()
	if memory, tasks := w.Shortages("bookworm", true); memory != nil || tasks != nil {
		t.Errorf("%v, %v", memory, tasks)
	}
	if _, err := UsageOf("/no-such-group", 0); !os.IsNotExist(err) {
		t.Errorf("%v", err)
	}
}
