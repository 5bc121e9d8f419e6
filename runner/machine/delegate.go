package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// delegate gives the root of a machine the files of its control group that the kernel means
// to be given away with one (cgroups(7), "Delegation"). systemd-nspawn 257 does so before the
// group has controllers, when there is no memory.oom.group. lxc in a machine does without
// control groups if it cannot write that file, and then fails (seen).
func delegate(group string, record Record) error {
	if record.Privileged {
		return nil
	}
	list, err := os.ReadFile("/sys/kernel/cgroup/delegate")
	if err != nil {
		return fmt.Errorf("which files of a control group are delegated: %w", err)
	}
	for name := range strings.FieldsSeq(string(list)) {
		// Without its controller, and in kernels where it is not for every group, a file is not there.
		err := os.Lchown(filepath.Join(group, name), record.RootUID, record.RootUID)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("delegate: %w", err)
		}
	}
	return nil
}
