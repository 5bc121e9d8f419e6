package machine

import (
	"slices"
	"testing"

	"nspawn-runner/runner/network"
)

func TestTheCommandLineOfAMachineFollowsItsRecord(t *testing.T) {
	ordinary := Record{ID: "7", RootUID: 1 << 20, IDs: 1 << 20, NoFUSE: true}
	for name, test := range map[string]struct {
		change   func(*Record)
		attached network.Network
		has      []string
		hasNot   []string
	}{
		"ordinary": {
			attached: network.Private,
			has:      []string{"--machine=run-7", "--private-network", "--private-users=1048576:1048576", "--drop-capability=CAP_SYS_RESOURCE", "systemd.hostname=run-7", "systemd.mask=getty.target"},
			hasNot:   []string{"--capability=all", "--bind=/dev/fuse"},
		},
		"privileged": {
			change:   func(r *Record) { r.Privileged, r.RootUID, r.IDs = true, 0, 0 },
			attached: network.None,
			has:      []string{"--capability=all", "--private-network"},
			hasNot:   []string{"--drop-capability=CAP_SYS_RESOURCE", "--private-users-ownership=off"},
		},
		"with the host's network, a name and a masked unit": {
			change:   func(r *Record) { r.Hostname, r.Masked = "build", []string{"reboot.target"} },
			attached: network.Host,
			has:      []string{"systemd.hostname=build", "systemd.mask=reboot.target"},
			hasNot:   []string{"--private-network"},
		},
	} {
		record := ordinary
		if test.change != nil {
			test.change(&record)
		}
		options, err := payload("/root", record)
		if err != nil {
			t.Fatal(err)
		}
		argv := append(nspawnCommand(record, "/root", test.attached), options...)
		for _, word := range append(test.has, "--directory=/root", "--boot") {
			if !slices.Contains(argv, word) {
				t.Errorf("%s: no %s in %q", name, word, argv)
			}
		}
		for _, word := range test.hasNot {
			if slices.Contains(argv, word) {
				t.Errorf("%s: %s in %q", name, word, argv)
			}
		}
	}
}

func TestAServiceSaysForWhichJobItsMachineIs(t *testing.T) {
	for want, record := range map[string]Record{
		"CI machine run-7, image bookworm":                  {ID: "7", Job: "7", Role: Main, Image: "bookworm"},
		"CI machine run-7-db (db of job 7), image postgres": {ID: "7-db", Job: "7", Role: "db", Image: "postgres"},
	} {
		if got := describe(record); got != want {
			t.Errorf("%q", got)
		}
	}
}
