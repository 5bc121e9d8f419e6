package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"nspawn-runner/runner/host"
	"nspawn-runner/runner/machine"
	"nspawn-runner/runner/size"
	"nspawn-runner/runner/statedir"
	"nspawn-runner/runner/storage"
)

// What the doctor asks of the room that machines live in: directories, user ids,
// disk and memory.

func (d Doctor) checkStateDir(context.Context) []Finding {
	dir := d.Jobs.Config.StateDir
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return isGood("%s does not exist yet and is created when it is needed", dir)
	case err != nil:
		return isBad("", "%v", err)
	case !info.IsDir():
		return isBad("set state_dir, or move it away", "%s is not a directory", dir)
	case info.Mode().Perm()&0o077 != 0:
		chmod := func(context.Context) error { return os.Chmod(dir, 0o700) }
		return withFix(isWarning("chmod 0700 "+dir, "other users can enter %s (mode %#o), and it contains setuid programs of jobs", dir, info.Mode().Perm()), chmod, "chmod 0700 %s", dir)
	}
	if err := statedir.OneFileSystem(d.Jobs.Config.StateDir); err != nil {
		return isBad("put the whole directory on one file system", "%v", err)
	}
	return isGood("%s", dir)
}

func (d Doctor) checkBackend(context.Context) []Finding {
	dir := host.Lowest(filepath.Join(d.Jobs.Config.StateDir, ".machines"))
	kind, err := storage.FileSystem(dir)
	if err != nil {
		return isBad("", "%v", err)
	}
	if kind != "btrfs" && d.Jobs.Config.Backend == "btrfs" {
		return isBad("set \"backend: auto\", or put state_dir on btrfs", "%s lies on %s, and the backend is btrfs", dir, kind)
	}
	backend, err := d.Jobs.CheckDiskLimit(d.Jobs.Config)
	if err != nil {
		return isBad("", "%v", err)
	}
	if backend.Name() == "btrfs" {
		return isGood("btrfs: machines are snapshots")
	}
	return isGood("%s, on %s", backend.Name(), kind)
}

func (d Doctor) checkIdmap(context.Context) []Finding {
	dir := host.Lowest(filepath.Join(d.Jobs.Config.StateDir, ".generations"))
	if err := storage.CheckIdmap(dir); err != nil {
		return isBad("put state_dir on ext4, xfs or btrfs", "%v", err)
	}
	return isGood("%s can be mounted with other user ids", dir)
}

// checkUserIDs looks who else has ids of the range that machines take theirs from. What
// subuid(5) gives to users they leave alone.
func checkUserIDs(context.Context) []Finding {
	if err := machine.CheckIDs(); err != nil {
		return isBad("give users fewer ids in /etc/subuid and /etc/subgid", "%v", err)
	}
	first, last := machine.UserIDs()
	var all []Finding
	for _, file := range []string{"/etc/passwd", "/etc/group"} {
		text, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			all = append(all, isBad("", "%v", err)...)
		}
		for _, owner := range ownersOf(string(text), first, last) {
			all = append(all, isWarning(fmt.Sprintf("give %s ids below %d", owner, first),
				"%s gives %s ids between %d and %d, which machines use: processes of both could have the same user id", file, owner, first, last)...)
		}
	}
	if all == nil {
		return isGood("no other user or group has ids from %d to %d", first, last)
	}
	return all
}

// ownersOf lists who has ids between two, in lines of passwd(5) or group(5).
func ownersOf(lines string, first, last int) []string {
	var owners []string
	for line := range strings.Lines(lines) {
		words := strings.Split(strings.TrimSpace(line), ":")
		if len(words) < 3 {
			continue
		}
		if id, err := strconv.Atoi(words[2]); err == nil && first <= id && id <= last {
			owners = append(owners, words[0])
		}
	}
	return owners
}

func (d Doctor) checkDisk(context.Context) []Finding {
	dir := host.Lowest(d.Jobs.Config.StateDir)
	if err := d.Jobs.AdmitDisk(dir); err != nil {
		return isBad("", "%v", err)
	}
	free, err := storage.Free(dir)
	if err != nil {
		return isBad("", "%v", err)
	}
	return isGood("%s are free in %s", size.MiB(free), dir)
}

func (d Doctor) checkMemory(context.Context) []Finding {
	if err := d.Jobs.AdmitMemory(); err != nil {
		return isBad("", "%v", err)
	}
	available, err := host.AvailableMemory()
	if err != nil {
		return isBad("", "%v", err)
	}
	return isGood("%s are available", size.MiB(available))
}

func (d Doctor) checkSwap(context.Context) []Finding {
	text, err := os.ReadFile("/proc/swaps")
	if err != nil {
		return isWarning("", "%v", err)
	}
	areas := max(0, bytes.Count(text, []byte("\n"))-1) // below a heading
	total, err := host.Memory()
	if err != nil {
		return isWarning("", "%v", err)
	}
	switch {
	case areas == 0:
		return isGood("none")
	case d.Jobs.Config.MemorySwapMax.Bytes(total) > 0:
		return isWarning("set \"memory_swap_max: 0\"", "a job at its memory_max fills the host's swap and slows the host before a process is killed")
	}
	return isGood("jobs use no swap (memory_swap_max)")
}
