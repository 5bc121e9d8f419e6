package integration

import (
	"strconv"
	"strings"
	"testing"
)

// The host's root counts what all machines make of inotify and of namespaces: one
// machine must not take all there is, or no other one boots.
func TestAttacksOnWhatMachinesShareAreHeld(t *testing.T) {
	h := onHost(t, "overlay")
	limit := func(what string) int { return number(t, shell(t, "cat /proc/sys/user/max_"+what)) }
	id := h.prepared(t, "bookworm")
	for what, try := range map[string]string{
		"inotify_instances": "while libc.inotify_init() >= 0: made += 1",
		"inotify_watches":   "fd = libc.inotify_init()\nfor n in range(20): os.mkdir(\"/tmp/%d\" % n)\nwhile made < 20 and libc.inotify_add_watch(fd, b\"/tmp/%d\" % made, 0x100) >= 0: made += 1",
	} {
		name := "take all " + what
		// The sysctls are the machine's own, and it cannot write them.
		// Where they are high, a process has no file left to read them afterwards.
		text := "python3 -c '\n" + exhausting + "own = open(\"/proc/sys/user/max_" + what + "\").read()\nmade = 0\n" + try + "\nprint(made, own)'"
		c := h.run(t, id, text)
		words := strings.Fields(c.stdout)
		if len(words) != 2 {
			t.Fatalf("%s: the machine could not try: %+v", name, c)
		}
		made, _ := strconv.Atoi(words[0])
		own, _ := strconv.Atoi(words[1])
		if host := limit(what); made < 10 || made > own || own > max(host/4, 32) {
			gotThrough(t, name, made, "of its", own, "of the host's", host)
		}
		held(name)
	}
	// /proc/sys is the machine's own, and read-only only as long as its root leaves it so.
	raise := `echo "$((1 << 30))" > /proc/sys/user/max_inotify_instances`
	for name, in := range map[string]string{
		"raise its share":                 "mount -o remount,rw,bind /proc/sys && sh -c",
		"raise its share in another proc": "unshare --mount --pid --fork --mount-proc sh -c",
	} {
		c := h.run(t, id, in+" '"+raise+"'")
		if c.status == 0 || !strings.Contains(c.stderr, "/proc/sys/user/max_inotify_instances: ") {
			gotThrough(t, name, c)
		}
		held(name)
	}
	// The same is allowed in a user namespace of its own, which gets no more by it.
	c := h.run(t, id, "unshare --user --map-root-user --mount --pid --fork --mount-proc sh -c '"+raise+`; python3 -c "
import ctypes
made = 0
while ctypes.CDLL(None).inotify_init() >= 0: made += 1
print(made)"'`)
	if made, err := strconv.Atoi(strings.TrimSpace(c.stdout)); c.status != 0 || err != nil || made > max(limit("inotify_instances")/4, 32) {
		gotThrough(t, "raise its share in a user namespace of its own", c)
	}
	held("raise its share in a user namespace of its own")
	// While it keeps what it got, others boot.
	c = h.run(t, id, `systemd-run -q --collect python3 -c '`+exhausting+`
for _ in range(min(20000, most // 2)): libc.inotify_init() # in vain, unless the host has more than enough
open("/ready", "w")
time.sleep(10000)'; while [ ! -e /ready ]; do sleep 0.01; done`)
	if c.status != 0 {
		t.Fatalf("%+v", c)
	}
	if c := h.run(t, h.prepared(t, "bookworm"), "python3 -c 'import ctypes; exit(ctypes.CDLL(None).inotify_init() < 0)'"); c.status != 0 {
		gotThrough(t, "keep others from inotify", c)
	}
	held("keep others from booting")
}
