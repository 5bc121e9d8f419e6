package job

import (
	"errors"
	"strings"
	"testing"

	"nspawn-runner/runner/gitlab"
)

func standsFor(names string) string {
	return "- hosts: all\n  vars:\n    nspawn_runner_service: " + names + "\n"
}

func TestAServiceIsTheImageThatTheFirstWhoKnowsItNames(t *testing.T) {
	d, said := newDriver(t, "services: {'postgres:*': sid, 'postgres:15': bookworm, 'x/*': trixie}\n", map[string]string{
		"trixie":   standsFor("['postgres:16', 'redis:*', my:latest]"),
		"bookworm": standsFor("['redis:6', '*/redis:*']"),
	})
	for written, want := range map[string]string{
		"postgres:15": "bookworm", "postgres": "sid", "postgres:16": "sid", "x/redis:6": "trixie",
		"redis": "trixie", "redis:7": "trixie", "redis:6": "bookworm", "registry.example:5000/redis": "bookworm", "my": "trixie",
	} {
		if name, err := d.findService(written); err != nil || name != want {
			t.Errorf("%s: %q, %v; want %s", written, name, err, want)
		}
	}
	if said.Len() > 0 {
		t.Errorf("said %q", said)
	}
}

func TestAServiceThatNoImageIsFailsTheJobAndSaysWhatThereIs(t *testing.T) {
	d, _ := newDriver(t, "services: {'postgres:*': sid, gone: nothing}\n", map[string]string{
		"trixie": standsFor("['redis:*']"), "bookworm": standsFor("['red*:7']"), "sid": "- hosts: all\n  vars: {nspawn_runner_service: 7}\n  x: [\n",
	})
	for written, want := range map[string]string{
		"mysql:8":                 "service mysql:8: no image of this host stands for it, and it is not pulled from a registry (oci_images); there are: postgres:*, gone, ",
		"bookworm":                "service bookworm: no image",
		"debian:bookworm":         "service debian:bookworm: no image",
		"":                        "no image of this host",
		"a\x1b[31m":               "service a [31m: no image",
		strings.Repeat("x", 2000): "the name of a service is longer than 1024 bytes",
	} {
		_, err := d.findService(written)
		var failure *gitlab.BuildFailure
		if !errors.As(err, &failure) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", written, err, want)
		}
	}
	for written, want := range map[string]string{"redis:7": "trixie.yaml stand for it", "gone": "services in "} {
		_, err := d.findService(written)
		var failure *gitlab.BuildFailure
		if err == nil || errors.As(err, &failure) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", written, err, want)
		}
	}
}
