package limits

import (
	"testing"
	"time"
)

func TestUsageIsWordedForPeople(t *testing.T) {
	for want, usage := range map[string]Usage{
		"job: 2m11s, processor 3m41s, memory 1228 MiB at most, 340 MiB written to disk": {
			131*time.Second + 200*time.Millisecond, 221 * time.Second, 1228 << 20, 340 << 20},
		"job: 1.2s, processor 100ms": {1234 * time.Millisecond, 90 * time.Millisecond, 0, 0},
	} {
		if got := usage.String(); got != want {
			t.Errorf("%+v is worded\n%s\nnot\n%s", usage, got, want)
		}
	}
}

func TestWhatPassesThroughTwoDisksIsWrittenOnce(t *testing.T) {
	stat := "253:0 rbytes=1 wbytes=4096 rios=1 wios=1 dbytes=0 dios=0\n8:0 \n8:16 rbytes=0 wbytes=8192 rios=0 wios=2\n"
	if got := written([]byte(stat)); got != 8192 {
		t.Errorf("written are %d", got)
	}
	if got := written(nil); got != 0 {
		t.Errorf("of nothing are written %d", got)
	}
}

func TestAQuotaIsSoManyProcessors(t *testing.T) {
	for quota, want := range map[string]float64{"max 100000\n": 0, "150000 100000\n": 1.5, "": 0, "1 0": 0, "x y": 0} {
		if got := processors([]byte(quota)); got != want {
			t.Errorf("%q: %v, want %v", quota, got, want)
		}
	}
}
