package integration

import (
	"strconv"
	"testing"
	"time"
)

// What jobs write goes with their machines, however hard it is to remove. Each of
// these is made by root in a machine; onHost looks that nothing of it stays.
func TestAttacksByTreesThatAreHardToRemoveAreHeld(t *testing.T) {
	for name, text := range map[string]string{
		"names with newlines, escape codes and bytes that are no text": `mkdir -p $'/x/a\nb/\x1b[31m' $'/x/\xff\xfe' && touch $'/x/a\nb/\x1b[31m/-rf' $'/x/\xff\xfe/ *' && mkdir /x/$(head -c 255 /dev/zero | tr '\0' n)`,
		"directories 10,000 deep":                                      deep(10000, ""),
		"immutable and append-only files":                              `mkdir -p /x/y; touch /x/y/a /x/y/b; chattr +i /x/y/a; chattr +a /x/y/b; chattr +i /x/y; true`,
		"files without permissions":                                    `mkdir -p /x/y/z; touch /x/y/z/f; chmod 0 /x/y/z/f /x/y/z /x/y /x`,
		"mounts":                                                       `mkdir -p /x/a /x/b; mount -t tmpfs none /x/a; mount --rbind /usr /x/b; mount -t tmpfs none /x/b/share; mount --make-rshared /x/b; test -e /x/b/bin`,
		"setuid programs, fifos and sockets":                           `mkdir /x; install -m 6755 /usr/bin/id /x/id; mkfifo /x/fifo; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("/x/socket")'; setfattr -n user.x -v y /x/id; true`,
		"files that a detached daemon holds open":                      `systemd-run -q --collect bash -c 'trap "" TERM HUP; mkdir /x; cd /x; exec 7>/x/held; rm /x/held; touch /ready; while :; do echo x >&7; sleep 0.01; done'; while [ ! -e /ready ]; do sleep 0.01; done`,
		"files that are made as fast as they are removed":              `systemd-run -q --collect bash -c 'mkdir /x; touch /ready; while :; do mkdir -p /x/$RANDOM/$RANDOM/$RANDOM; done'; while [ ! -e /ready ]; do sleep 0.01; done`,
	} {
		t.Run(name, func(t *testing.T) { onEach(t, func(t *testing.T, h *host) { h.leave(t, name, text) }) })
	}
	// In a tmpfs they go with their mount.
	const many = "200,000 files"
	t.Run(many, func(t *testing.T) {
		onDisks(t, func(t *testing.T, h *host) {
			h.leave(t, many, `python3 -c 'import os; os.mkdir("/x"); [open(f"/x/{n}", "w").close() for n in range(200000)]'`)
		})
	})
	for name, text := range map[string]string{
		"nested and read-only subvolumes":     subvolumes,
		"a read-only subvolume 3,000 deep":    deep(3000, subvolumeHere),
		"a hundred subvolumes in one another": `python3 -c '` + subvolume + "\nfor n in range(100): sub(\"s\"); os.chdir(\"s\")\nopen(\"f\", \"w\")'",
	} {
		t.Run(name, func(t *testing.T) { h := onHost(t, "btrfs"); h.leave(t, name, text) })
	}
}

// leave makes a machine that executes a script, and cleans up after it.
func (h *host) leave(t *testing.T, name, text string) {
	t.Helper()
	id := newID()
	if c := h.drive(t, "prepare", "--id", id, "bookworm"); c.status != 0 {
		t.Fatal(c.stderr)
	}
	c := h.run(t, id, text)
	start := time.Now()
	cleanup := h.drive(t, "cleanup", "--id", id)
	if c.status != 0 {
		t.Errorf("%s cannot be made: %+v", name, c)
	}
	if took := time.Since(start); cleanup.status != 0 || cleanup.stderr != "" || took > 60*time.Second {
		t.Errorf("got through: leave %s: after %v %+v", name, took, cleanup)
	}
	h.checkNothingLeft(t)
	if !t.Failed() {
		held("leave " + name + " (" + h.backend + ")")
	}
}

// deep makes directories so deep that no path leads there, and does something in
// the deepest.
func deep(levels int, then string) string {
	return `python3 -c '` + subvolume + `
os.mkdir("/x"); os.chdir("/x")
for n in range(` + strconv.Itoa(levels) + `): os.mkdir("d"); os.chdir("d")
open("f", "w")
` + then + `'`
}

// subvolume defines sub, which makes a btrfs subvolume in the working directory,
// and readonly, which takes it from who would write to it: linux/btrfs.h.
const subvolume = `
import fcntl, os, struct
def here(path, request, data):
    at = os.open(path, os.O_RDONLY)
    fcntl.ioctl(at, request, data)
    os.close(at)
def sub(path): here(os.path.dirname(path) or ".", 0x5000940e, bytearray(struct.pack("q4088s", 0, os.path.basename(path).encode())))
def readonly(name): here(name, 0x4008941a, struct.pack("Q", 2))
`

const subvolumeHere = `sub("s"); open("s/f", "w"); readonly("s")`

const subvolumes = `python3 -c '` + subvolume + `
os.mkdir("/x"); os.chdir("/x")
sub("a"); sub("a/b"); os.mkdir("a/b/d"); sub("a/b/d/c"); open("a/b/d/c/f", "w").close()
for name in ("a/b/d/c", "a/b", "a"): readonly(name)
'`
