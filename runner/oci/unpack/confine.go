package unpack

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// memory bounds the memory of the process, in bytes. It is enough for the window of a zstd layer, and for the list
// of a layer's files.
const memory = 512 << 20

// Run is the command [Command]: it reads layers, unpacks them into the tree, and writes the result. It must be a
// child in namespaces of its own, because the tree becomes the root directory of this process.
func Run(args []string, layers io.Reader, out io.Writer) error {
	result, err := run(args, layers)
	said := end{result, slices.ContainsFunc(hostErrors, func(of error) bool { return errors.Is(err, of) })}
	return errors.Join(err, json.NewEncoder(out).Encode(said))
}

// hostErrors are those of a host that lacks something, or is broken.
var hostErrors = []error{unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.EROFS, unix.ENOMEM, unix.EMFILE, unix.ENFILE}

func run(args []string, layers io.Reader) (Result, error) {
	if len(args) != 3 {
		return Result{}, fmt.Errorf("usage: %s TREE BYTES FILES", Command)
	}
	var limits Limits
	for i, limit := range []*uint64{&limits.Bytes, &limits.Files} {
		var err error
		if *limit, err = strconv.ParseUint(args[i+1], 10, 64); err != nil {
			return Result{}, err
		}
	}
	if os.Getpid() != 1 {
		return Result{}, errors.New("this command is a part of pulling an image, and not for people")
	}
	// If this program is linked with a C library, as tests may be, only this thread can drop its
	// capabilities.
	runtime.LockOSThread()
	if err := confine(args[0], limits.processor()); err != nil {
		return Result{}, fmt.Errorf("leave the host: %w", err)
	}
	// The tree was made under the host's umask. A layer may set another mode.
	if err := unix.Chmod("/", 0o755); err != nil {
		return Result{}, err
	}
	t := newTree(limits)
	for {
		next, err := readFrame(layers)
		if err != nil {
			return Result{}, err
		}
		if next.Size == endOfLayers {
			break
		}
		if err := t.layer(io.LimitReader(layers, next.Size), next.Sum); err != nil {
			return Result{}, err
		}
	}
	if err := furnish(); err != nil {
		return Result{}, err
	}
	t.result.Bytes -= min(t.result.Bytes, t.freed)
	return t.result, nil
}

// processor returns how many seconds of processor time the layers may take: ten minutes, and one second for each
// 4 MiB. With links in its path, each name may take long to look up.
func (l Limits) processor() uint64 { return 600 + l.Bytes>>22 }

// confine limits this process, and makes the tree its root directory. seconds bounds its processor time.
func confine(tree string, seconds uint64) error {
	debug.SetMemoryLimit(memory / 2)
	for _, limit := range []struct {
		resource int
		most     uint64
	}{{unix.RLIMIT_DATA, memory}, {unix.RLIMIT_NOFILE, 1024}, {unix.RLIMIT_CORE, 0}, {unix.RLIMIT_MEMLOCK, 0}} {
		if err := unix.Setrlimit(limit.resource, &unix.Rlimit{Cur: limit.most, Max: limit.most}); err != nil {
			return fmt.Errorf("limit resource %d: %w", limit.resource, err)
		}
	}
	if err := limitTime(seconds); err != nil {
		return fmt.Errorf("limit the processor time: %w", err)
	}
	unix.Umask(0)
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := enter(tree); err != nil {
		return err
	}
	if err := giveUpRights(); err != nil {
		return err
	}
	return filterCalls()
}

// limitTime ends the process when it has used so many seconds of processor time. The kernel kills it a little later in
// any case.
func limitTime(seconds uint64) error {
	over := make(chan os.Signal, 1)
	signal.Notify(over, unix.SIGXCPU)
	go func() {
		<-over
		fmt.Fprintln(os.Stderr, "the layers take longer to unpack than layers of any image should: it may be made for that")
		os.Exit(1)
	}()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CPU, &limit); err != nil {
		return err
	}
	return unix.Setrlimit(unix.RLIMIT_CPU, &unix.Rlimit{Cur: min(seconds, limit.Max), Max: min(seconds+10, limit.Max)})
}

// enter makes the tree the root directory, and unmounts everything else.
func enter(tree string) error {
	mount, err := unix.OpenTree(unix.AT_FDCWD, tree, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open_tree: %w", err)
	}
	defer unix.Close(mount)
	// This process executes nothing in it.
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC}
	if err := unix.MountSetattr(mount, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return fmt.Errorf("mount_setattr: %w", err)
	}
	if err := unix.MoveMount(mount, "", unix.AT_FDCWD, tree, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("move_mount: %w", err)
	}
	if err := unix.Chdir(tree); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil { // then the old root is mounted over the new one
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the host: %w", err)
	}
	return unix.Chdir("/")
}

// needed are the capabilities to write files of all owners, with all modes.
const needed = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_FOWNER | 1<<unix.CAP_FSETID | 1<<unix.CAP_SETFCAP

// giveUpRights drops all other capabilities for good.
func giveUpRights() error {
	if err := everyThread(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1); err != nil {
		return fmt.Errorf("no new privileges: %w", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: needed, Permitted: needed}}
	if err := everyThread(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0]))); err != nil {
		return fmt.Errorf("give up capabilities: %w", err)
	}
	return nil
}

// everyThread makes a system call on all threads. With a C library, it makes it on this thread only.
func everyThread(call, a, b uintptr) error {
	_, _, errno := syscall.AllThreadsSyscall(call, a, b, 0)
	if errno == unix.ENOTSUP {
		_, _, errno = syscall.Syscall(call, a, b, 0)
	}
	if errno != 0 {
		return errno
	}
	return nil
}
