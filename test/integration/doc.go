// Package integration tries the compiled driver on a real host: real systemd,
// real nspawn, real file systems, with the simulator as gitlab-runner.
//
// The tests run inside a host as root, in a lab or in a VM; everywhere else
// they skip. `mage test:lab` and `mage test:vm` compile this package, carry it
// into such a host, and run it there. Environment variables say what is where:
//
//	NSPAWN_RUNNER_DRIVER   the driver's binary
//	NSPAWN_RUNNER_FAULTS   the same, built with the tag faults
//	NSPAWN_RUNNER_SIMULATE the simulator as a command, in the lab
//	NSPAWN_RUNNER_JOBS     how many jobs a soak plays on each backend, if not a hundred in all
//	NSPAWN_RUNNER_SEED     the seed of what it does to them, if not a new one
//	NSPAWN_RUNNER_CUT      in a VM that lost power, the mark of the driver it was at
//	NSPAWN_RUNNER_DEBIAN   Debian trees with the programs of docs/debian.md, by release
//	NSPAWN_RUNNER_MATRIX   Debian trees that can be images, by release
//	NSPAWN_RUNNER_BASE     a Debian tree that can be an image
//	NSPAWN_RUNNER_SCRATCH  a directory on a disk, where state directories go
//
// After each test the host is searched for what the driver may have left:
// units, mounts, directories, subvolumes, files in /run, processes.
package integration
