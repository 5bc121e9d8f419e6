package guard

import (
	"crypto/sha256"
	"fmt"
	"testing"
)

// A slice that has the programs of an older driver gets others only if the format says so.
func TestTheFormatCountsEachChangeOfThePrograms(t *testing.T) {
	sysfs, err := refuseSysfs(func(string, string) (int16, error) { return 8, nil })
	if err != nil {
		t.Fatal(err)
	}
	programs := fmt.Sprint(refuseFamilies(), refuseFileSystems(), sysfs)
	got := fmt.Sprintf("%s: %.4x", guardFormat, sha256.Sum256([]byte(programs)))
	if want := "1: 71c04725"; got != want {
		t.Errorf("%q, not %q: if a program has changed, count guardFormat up and write this here", got, want)
	}
}
