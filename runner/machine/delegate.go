package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// delegate gives the files of a control group that the kernel lists for delegation (cgroups(7)) to the
// machine's root. systemd-nspawn 257 does this before the group has controllers, so memory.oom.group
// does not exist yet. If lxc in a machine cannot write that file, it uses no control groups, and fails
// (seen).
func delegate(group string, record Record) error {
	if record.Privileged {
		return nil
	}
	list, err := os.ReadFile("/sys/kernel/cgroup/delegate")
	if err != nil {
		return fmt.Errorf("which files of a control group are delegated: %w", err)
	}
	for name := range strings.FieldsSeq(string(list)) {
		// A file does not exist without its controller, and in some kernels not in every group.
		err := os.Lchown(filepath.Join(group, name), record.RootUID, record.RootUID)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("delegate: %w", err)
		}
	}
	return nil
}
