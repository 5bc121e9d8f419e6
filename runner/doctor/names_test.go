package doctor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheDoctorNamesWhatTheConfigurationCallsAndIsNot(t *testing.T) {
	d := newDoctor(t, "default_image: nothing\nimages: {'debian:12': bokworm, 'x/*': triixie}\nservices: {redis: rdeis}\n", nil)
	if state, words := worst(d.checkNames(t.Context())); state != Bad || strings.Count(words, "there is no such image") != 4 {
		t.Errorf("the doctor: %s %s", state, words)
	}
}

func TestTheDoctorKnowsNamesThatMeanTwoImages(t *testing.T) {
	for text, test := range map[string]struct {
		aliases string
		want    State
		says    string
	}{
		"":                                {"stable", Good, "0 in the configuration, 1 in playbooks"},
		"images: {'debian:12': bookworm}": {"'debian:12'", Warning, "debian:12 means bookworm, as the configuration says, and not trixie"},
		"images: {'debian:13': trixie}":   {"'debian:13'", Good, "1 in the configuration, 1 in playbooks"},
		"default_image: sid":              {"bookworm", Warning, "bookworm is an image of its own, so it does not mean trixie"},
		"default_image: trixie":           {"unstable", Bad, "sid.yaml and "},
	} {
		d := newDoctor(t, text, map[string]string{"trixie": "- vars: {nspawn_runner_aliases: [" + test.aliases + "]}\n", "sid": "- vars: {nspawn_runner_aliases: unstable}\n"})
		if text == "" || test.want == Good {
			os.Remove(filepath.Join(d.Jobs.Config.PlaybookDir, "sid.yaml"))
		}
		if state, words := worst(d.checkNames(t.Context())); state != test.want || !strings.Contains(words, test.says) {
			t.Errorf("%q: %s %s", text, state, words)
		}
	}
}
