package machine

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/starter"
	"nspawn-runner/runner/storage"
	"nspawn-runner/runner/systemd"
)

// A machine is booted, or it executes one program, as a container does: then it has no init,
// and ends when the program ends. Such a machine has less than a booted one: not what
// containers in it need, no devices, and the capabilities that docker gives.

// recorded is what goes on record. Who may use little memory shall not fill the host's by
// files in /dev/shm; but what is there counts to the machine's memory anyway. So all of that
// may lie there: browsers need more than the 64 MiB of docker.
func recorded(p *Program, limits Limits) *programRecord {
	if p == nil {
		return nil
	}
	record := &programRecord{StopSignal: int(p.StopSignal)}
	if limits.MemoryMax < math.MaxUint64 {
		record.SharedMemory = limits.MemoryMax
	}
	return record
}

const (
	// starterPlace is where a machine sees this program: in a tmpfs of systemd-nspawn's, so
	// that it lies at no place in the image, which may be hostile, or lack a directory.
	starterPlace = "/dev/.nspawn-runner"
	// planPipe is a pipe in the directory of a machine, which is the starter's standard input.
	planPipe = "plan"
	// planLimit bounds how long a starter takes to read its plan.
	planLimit = 10 * time.Second
)

// droppedCapabilities are those that systemd-nspawn gives a machine and docker does not.
const droppedCapabilities = "CAP_AUDIT_CONTROL,CAP_DAC_READ_SEARCH,CAP_IPC_OWNER,CAP_LEASE,CAP_LINUX_IMMUTABLE,CAP_NET_BROADCAST," +
	"CAP_SYS_ADMIN,CAP_SYS_BOOT,CAP_SYS_NICE,CAP_SYS_PTRACE,CAP_SYS_RESOURCE,CAP_SYS_TTY_CONFIG"

// begin has the program of a machine begin, whose starter waits. It adds to the record where
// the machine runs.
func (s Store) begin(ctx context.Context, bus *systemd.Bus, plan starter.Plan, record *Record) error {
	leader, err := bus.Leader(ctx, Name(record.ID))
	if err != nil {
		return fmt.Errorf("ask machined for its first process: %w", err)
	}
	record.Leader = &leader
	if record.Cgroup, err = serviceCgroup(leader.PID, unitName(record.ID)); err != nil {
		return err
	}
	if err := limitGroups(record.Cgroup); err != nil {
		return err
	}
	fault.Here("machine: starter waits")
	path := filepath.Join(s.dir(record.ID), planPipe)
	pipe, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("tell the starter what to start: %w", err)
	}
	defer pipe.Close()
	if err := pipe.SetWriteDeadline(time.Now().Add(planLimit)); err != nil {
		return err
	}
	if err := plan.Send(pipe); err != nil {
		return fmt.Errorf("tell the starter what to start: %w", err)
	}
	fault.Here("machine: plan sent")
	s.logf("%s: its program begins, as process %d", Name(record.ID), leader.PID)
	return os.Remove(path)
}

// programOptions prepares what a machine with a program sees beside its root, and returns
// systemd-nspawn's options for it. The last one is its program: the starter.
func programOptions(mnt, root string, program programRecord) ([]string, error) {
	binds, err := bindRun(mnt, root)
	if err != nil {
		return nil, err
	}
	self, err := bindStarter(mnt)
	if err != nil {
		return nil, err
	}
	fault.Here("boot: starter bound")
	shared := "--tmpfs=/dev/shm:mode=1777"
	if program.SharedMemory > 0 {
		shared += fmt.Sprintf(",size=%d", program.SharedMemory)
	}
	return append(binds,
		"--bind-ro="+escaped.Replace(self)+":"+starterPlace,
		shared,
		"--drop-capability="+droppedCapabilities,
		"--console=pipe",
		starterPlace, "start"), nil
}

// bindStarter mounts this program's file, read-only, and not through a descriptor: behind
// /proc/self/exe of the machine would be the host's file on the host's own mount.
func bindStarter(mnt string) (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", err
	}
	if err := checkStatic(path); err != nil {
		return "", err
	}
	file, err := os.OpenFile(path, unix.O_PATH, 0)
	if err != nil {
		return "", err
	}
	defer file.Close()
	at := filepath.Join(mnt, "starter")
	if err := os.WriteFile(at, nil, 0o755); err != nil {
		return "", err
	}
	view := storage.View{Set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV, Clear: unix.MOUNT_ATTR_NOEXEC}
	return at, storage.Bind(file, at, view)
}

// checkStatic finds out whether a program needs files beside it, which an image may not have.
func checkStatic(path string) error {
	program, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	defer program.Close()
	for _, part := range program.Progs {
		if part.Type == elf.PT_INTERP {
			return fmt.Errorf("%s is linked dynamically and cannot start programs in images of registries: build it with CGO_ENABLED=0", path)
		}
	}
	return nil
}

// maxRun bounds how many directories of the image's /run a machine has.
const maxRun = 64

// runName matches the names of such directories that can be written in an option.
var runName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)

// bindRun shows the directories of the image's /run, which systemd-nspawn covers with a tmpfs:
// programs find there what their image made for their sockets.
func bindRun(mnt, root string) (options []string, err error) {
	run, err := storage.OpenIn(root, "run", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, nil // the image has none
	}
	defer run.Close()
	names, _ := run.Readdirnames(maxRun)
	for i, name := range names {
		if !runName.MatchString(name) || name == "host" || name == "systemd" { // systemd-nspawn's own
			continue
		}
		from, err := openDirectory(run, name)
		if err != nil {
			continue // a file, or a link
		}
		at := filepath.Join(mnt, fmt.Sprintf("run-%d", i))
		err = os.Mkdir(at, 0o755)
		if err == nil {
			err = storage.Bind(from, at, storage.View{Set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV})
		}
		from.Close()
		if err != nil {
			return nil, fmt.Errorf("show /run/%q of the image: %w", name, err)
		}
		options = append(options, "--bind="+escaped.Replace(at)+":/run/"+name)
	}
	return options, nil
}

// without are what of the host's limits of user namespaces a machine has nothing: in one with
// a program, nobody makes further user namespaces, as in docker's, since root in them could do
// what the program's user cannot.
func (r Record) without() []string {
	if r.Program == nil {
		return nil
	}
	return []string{"max_user_namespaces"}
}

// errNoInit is why nothing else can be executed in a machine.
var errNoInit = errors.New("it executes the program of an image without an init: no script and no shell can be executed beside it")
