// Package installed does with the Debian package what an administrator does: on a new
// Debian in a lab it installs the package with apt, builds an image, runs jobs, upgrades
// beside jobs, removes and purges it.
//
// `mage test:package` builds the package and runs the tests. Environment variables say
// what is where; without them the tests skip:
//
//	NSPAWN_RUNNER_DEB   the directory of the package
//	NSPAWN_RUNNER_BUILD the directory of the simulator of gitlab-runner
//	NSPAWN_RUNNER_SUITE the release of the Debian, bookworm if it is not set
package installed
