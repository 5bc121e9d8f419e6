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

// A machine boots, or it executes one program, as a container does. Such a machine has no init, and ends
// when the program ends. It has no devices of the host, nothing that containers in it would need, and
// only the capabilities that docker gives.

// recorded returns what the record says of a program. /dev/shm may have as many bytes as the machine may
// use memory: its files count to that memory anyway, and browsers need more than docker's 64 MiB.
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
	// starterPlace is where a machine sees this program: in a tmpfs of systemd-nspawn. A place in
	// the image may be hostile, or its directory may be missing.
	starterPlace = "/dev/.nspawn-runner"
	// planPipe is a pipe in the directory of a machine: the standard input of the starter.
	planPipe = "plan"
	// planLimit bounds how long a starter takes to read its plan.
	planLimit = 10 * time.Second
)

// droppedCapabilities are those that systemd-nspawn gives a machine and docker does not.
const droppedCapabilities = "CAP_AUDIT_CONTROL,CAP_DAC_READ_SEARCH,CAP_IPC_OWNER,CAP_LEASE,CAP_LINUX_IMMUTABLE,CAP_NET_BROADCAST," +
	"CAP_SYS_ADMIN,CAP_SYS_BOOT,CAP_SYS_NICE,CAP_SYS_PTRACE,CAP_SYS_RESOURCE,CAP_SYS_TTY_CONFIG"

// begin sends the plan to a machine's starter, which waits for it. It adds the first process and the
// control group to the record.
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

// programOptions mounts what a machine with a program sees beside its root. It returns the options of
// systemd-nspawn for that, followed by the command line of the starter.
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

// bindStarter mounts the file of this program read-only. If the machine got a descriptor instead,
// /proc/self/exe in the machine would lead to the host's file on the host's mount.
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

// checkStatic returns an error if a program is linked dynamically: an image may lack its libraries.
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

// maxRun bounds how many directories of the image's /run a machine gets.
const maxRun = 64

// runName matches those names of such directories that can stand in an option.
var runName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)

// bindRun shows the directories of the image's /run, which systemd-nspawn covers with a tmpfs. Images
// have directories there for the sockets of their programs.
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

// without returns the limits of user namespaces that are zero for the machine. A machine with a program
// has no further user namespaces, as with docker: root in one could do what the program's user cannot.
func (r Record) without() []string {
	if r.Program == nil {
		return nil
	}
	return []string{"max_user_namespaces"}
}

// errNoInit is the error of a script for a machine with a program.
var errNoInit = errors.New("it executes the program of an image without an init: no script and no shell can be executed beside it")
