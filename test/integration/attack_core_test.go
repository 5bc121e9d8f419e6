package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// With these settings of the host, the kernel writes core dumps of setuid programs below
// the host's root, whoever they belong to.
func TestAttacksByCoreDumpsAreHeldInAVM(t *testing.T) {
	needVM(t)
	h := onHost(t, "overlay")
	control := h.prepared(t, "bookworm") // its core dumps are its own, so far
	dir := filepath.Join(shared(t), "cores")
	must(t, os.MkdirAll(dir, 0o700))
	setting(t, "/proc/sys/kernel/core_pattern", dir+"/%e")
	setting(t, "/proc/sys/fs/suid_dumpable", "2")
	attacker := h.prepared(t, "bookworm")
	crash := func(id, name string) bool {
		c := h.run(t, id, fmt.Sprintf(`cp /bin/sleep /srv/%[1]s && chmod 4755 /srv/%[1]s
ulimit -c unlimited # which may be refused; the kernel may write one all the same
setpriv --reuid=65534 --regid=65534 --clear-groups /srv/%[1]s 1000 &
until [ "$(cat /proc/$!/comm)" = %[1]s ]; do sleep 0.1; done
kill -SEGV $!; wait $!; [ $? = 139 ]`, name))
		_, err := os.Stat(filepath.Join(dir, name))
		if c.status != 0 {
			t.Errorf("%s: nothing crashed: %+v", name, c)
		}
		return err == nil
	}
	const name = "write to the host by the core dump of a setuid program"
	if crash(attacker, "attack") {
		gotThrough(t, name)
	}
	if !crash(control, "control") {
		t.Errorf("%s: was held, but so was its control", name)
	}
	held(name)
}

// setting changes a setting of the host's kernel for a test.
func setting(t *testing.T, path, value string) {
	t.Helper()
	before, err := os.ReadFile(path)
	must(t, err, os.WriteFile(path, []byte(value), 0o644))
	t.Cleanup(func() { must(t, os.WriteFile(path, before, 0o644)) })
}
