package storage

import (
	"errors"
	"fmt"
	"os"
)

// InPlace returns the backend whose roots are the trees themselves. The machine writes to the tree, with the
// host's ids. A build boots the tree that it makes in this way. Machines of jobs never have this backend, and
// the configuration cannot name it.
func InPlace() Backend { return inPlace{} }

type inPlace struct{}

func (inPlace) Name() string { return "in-place" }

func (inPlace) Traits() Traits { return Traits{} }

func (inPlace) CanLimit(string) error {
	return errors.New("the machine of a build has no limit")
}

func (inPlace) Prepare(string, string, int, uint64) (*os.File, error) { return nil, nil }

func (inPlace) Used(string) (bytes, files uint64, err error) { return 0, 0, nil }

func (inPlace) Mount(dir, chroot string, owner int, _ Disk) (string, error) {
	root, err := bindRoot(dir, chroot, owner)
	if err != nil {
		return "", fmt.Errorf("boot a tree in place: %w", err)
	}
	return root, nil
}
