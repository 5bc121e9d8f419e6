package box

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
)

// lend gives a tree what commands in a box need, and returns what takes it back:
//
//   - resolv.conf of the host, whose network a build shares;
//   - hosts, so that sudo does not ask the network for the host name;
//   - a policy-rc.d that keeps packages from starting their daemons;
//   - stand-ins for programs that need a booted system, see standins.go;
//   - what more the caller has.
//
// A file that was changed meanwhile stays as it is: then it is the image's.
// Nothing is bound over the tree's files, because packages rename them.
func lend(root, hostname string, more []Loan) (takeBack func() error, err error) {
	tree, err := os.OpenRoot(root)
	if err != nil {
		return nil, err
	}
	resolv, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(err, tree.Close())
	}
	hosts, err := tree.ReadFile("etc/hosts")
	if err != nil {
		hosts = []byte("127.0.0.1 localhost\n::1 localhost\n")
	}
	hosts = fmt.Appendf(hosts, "127.0.1.1 %s\n", hostname)

	loans := []Loan{
		{"etc/resolv.conf", resolv, 0o644},
		{"etc/hosts", hosts, 0o644},
		{"usr/sbin/policy-rc.d", []byte("#!/bin/sh\nexit 101\n"), 0o755},
	}
	scripts, err := standInsFor(tree, "unbooted")
	if err != nil {
		return nil, errors.Join(err, tree.Close())
	}
	if err := tree.Close(); err != nil {
		return nil, err
	}
	return give(root, slices.Concat(loans, scripts, more))
}

// LendToMachine gives the tree at root, from which a machine was booted, its stand-ins
// and more, and returns what takes them back.
func LendToMachine(root string, more ...Loan) (takeBack func() error, err error) {
	tree, err := os.OpenRoot(root)
	if err != nil {
		return nil, err
	}
	scripts, err := standInsFor(tree, "booted")
	if err := errors.Join(err, tree.Close()); err != nil {
		return nil, err
	}
	return give(root, append(scripts, more...))
}
