package size

import "testing"

func TestAmountsAreWordedAsTheConfigurationHasThem(t *testing.T) {
	for bytes, want := range map[uint64]string{
		0: "0 MiB", 1: "1 MiB", 1<<20 - 1: "1 MiB", 2<<20 - 1: "1 MiB", 20 << 30: "20480 MiB", 1<<64 - 1: "17592186044415 MiB",
	} {
		if got := MiB(bytes); got != want {
			t.Errorf("%d bytes: %s, want %s", bytes, got, want)
		}
	}
}
