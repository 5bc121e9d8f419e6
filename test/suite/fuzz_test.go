package suite

import (
	"slices"
	"testing"
)

func TestEachPackagesFuzzTargetsAreFound(t *testing.T) {
	targets, err := fuzzTargets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []fuzzTarget{
		{"nspawn-runner/runner/gitlab", "FuzzImageName"}, {"nspawn-runner/runner/gitlab", "FuzzParseResponse"},
		{"nspawn-runner/runner/config", "FuzzLoad"}, {"nspawn-runner/runner/image/ansible", "FuzzParsePlaybook"},
	} {
		if !slices.Contains(targets, want) {
			t.Errorf("%v is not among %v", want, targets)
		}
	}
}
