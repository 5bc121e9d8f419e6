package harness

import (
	"slices"
	"testing"
)

func TestHierarchiesAreFoundWhereTheyAreMounted(t *testing.T) {
	for name, c := range map[string]struct {
		mountinfo string
		unified   string
		legacy    []string
	}{
		"unified": {
			"30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n",
			"/sys/fs/cgroup", nil,
		},
		"hybrid": {
			`35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
42 31 0:32 / /mnt/again rw,relatime - cgroup cgroup rw,memory
`,
			"/sys/fs/cgroup/unified", []string{"/sys/fs/cgroup/memory", "/sys/fs/cgroup/systemd"},
		},
		"none": {"24 27 0:6 / /dev rw,relatime - devtmpfs devtmpfs rw\n", "", nil},
	} {
		unified, legacy := hierarchies(c.mountinfo)
		if unified != c.unified || !slices.Equal(legacy, c.legacy) {
			t.Errorf("%s: found %q and %q", name, unified, legacy)
		}
	}
}
