package harness

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// VMOptions says what a VM is like and what it does.
type VMOptions struct {
	// Tree is what it boots; [GuestTree] if it has no suite.
	Tree Recipe
	// Command runs in the VM as root, from /, when the VM is up.
	Command []string
	// Output gets what the command prints, line by line; nil discards it.
	Output io.Writer
	// Files are the VM's copies of files and directories of the outer
	// machine, by their paths in the VM. Nothing may run from below /run.
	Files map[string]string
	// Disks are more disks.
	Disks []Disk
	// Root is a file that keeps what the VM changes on its root, for another
	// VM to go on with; it is made if it is not there. Without it the changes
	// are lost. It is of no use with another tree.
	Root string
	// Reboot ends the VM as a reboot does, once its command has ended: each
	// unit is stopped in its turn. Another VM with the same Root and Disks is
	// the boot that follows. Without Reboot the VM is powered off at once.
	Reboot bool
	// CutPower is a line of the output at which the VM's power is cut, CutDelay
	// after it comes for the first time. What the VM has handed to its disks by
	// then is on them, what is only in its memory is lost. RunVM, which then has
	// the error [ErrPowerCut], returns when its disks can be used again.
	CutPower string
	CutDelay time.Duration
	// Journal is a directory that gets the VM's journal files, if its command
	// comes to an end.
	Journal string
	// Limit is how long the VM may run; 20 minutes by default.
	Limit time.Duration
	// Memory is in MiB, by default 3072. CPUs are 2 by default.
	Memory, CPUs int
	// Out gets a line about what takes long; nil discards it.
	Out io.Writer
}

// ErrPowerCut is the error of a VM whose power was cut as wanted.
var ErrPowerCut = errors.New("its power was cut")

// virtualMachine is a running Debian in QEMU.
type virtualMachine struct {
	options VMOptions
	site    *site
	guest   string // the directory of the image
	stop    context.CancelFunc

	process *process
	ports   sync.WaitGroup // of goroutines that read what the VM says
	said    bytes.Buffer   // on its status port
	cut     atomic.Bool    // the power was cut, and not by the end of the VM's command

	done   chan struct{} // closed when the following are set
	status int
	err    error
}

// A VM speaks on virtio ports: the command's output, its exit status, and the
// journal.
const (
	outPort     = "out"
	statusPort  = "status"
	journalPort = "journal"
)

var ports = []string{outPort, statusPort, journalPort}

// kvmLimit is how long a kernel may take to say its first word under KVM.
const kvmLimit = 10 * time.Second

// RunVM boots a VM, runs its command, and is that command's exit status.
func RunVM(ctx context.Context, o VMOptions) (status int, err error) {
	vm, err := startVM(ctx, o)
	if err != nil {
		return 0, err
	}
	return vm.wait()
}

// startVM boots a VM that ends when its command does, when it is killed, or
// when the context ends.
func startVM(ctx context.Context, o VMOptions) (*virtualMachine, error) {
	if o.Tree.Suite == "" {
		o.Tree = GuestTree
	}
	o.Limit = cmp.Or(o.Limit, 20*time.Minute)
	o.Memory = cmp.Or(o.Memory, 3072)
	o.CPUs = cmp.Or(o.CPUs, 2)
	if o.Out == nil {
		o.Out = io.Discard
	}
	if o.Output == nil {
		o.Output = io.Discard
	}
	if runtime.GOARCH != "amd64" {
		return nil, errors.New("vm: start: only on amd64")
	}
	if os.Getuid() != 0 {
		return nil, errors.New("vm: start: only root can")
	}
	guest, err := Guest(ctx, o.Out, o.Tree)
	if err != nil {
		return nil, fmt.Errorf("vm: %w", err)
	}
	site, err := newSite(ctx)
	if err != nil {
		return nil, fmt.Errorf("vm: %w", err)
	}
	ctx, stop := context.WithTimeoutCause(ctx, o.Limit, fmt.Errorf("its limit of %v is over", o.Limit))
	vm := &virtualMachine{options: o, site: site, guest: guest, stop: stop, done: make(chan struct{})}
	if err := vm.boot(ctx); err != nil {
		err = fmt.Errorf("vm: boot: %w%s", err, vm.lastWords())
		return nil, errors.Join(err, vm.clear())
	}
	go vm.finish(ctx)
	return vm, nil
}

// wait waits for the VM to end and is its command's exit status.
func (vm *virtualMachine) wait() (status int, err error) {
	<-vm.done
	return vm.status, vm.err
}

// boot starts QEMU in the first way that works.
func (vm *virtualMachine) boot(ctx context.Context) error {
	if err := writePayload(vm.site.path("payload"), vm.options); err != nil {
		return err
	}
	for i := range vm.options.Disks {
		disk := &vm.options.Disks[i]
		disk.Path = cmp.Or(disk.Path, vm.site.path("disk-"+disk.Label))
		if err := disk.create(ctx); err != nil {
			return err
		}
	}
	if err := vm.keepRoot(ctx); err != nil {
		return err
	}
	var err error
	for _, accel := range accelerators() {
		if err = vm.launch(ctx, accel); err == nil {
			return nil
		}
		if context.Cause(ctx) != nil {
			return context.Cause(ctx)
		}
		if accel == "kvm" {
			rememberKVMFailed()
		}
	}
	return err
}

// keepRoot makes the file for the changes of the root.
func (vm *virtualMachine) keepRoot(ctx context.Context) error {
	if vm.options.Root == "" {
		return nil
	}
	if _, err := os.Stat(vm.options.Root); err == nil {
		return nil
	}
	return quietly(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", vm.guest+"/root.img", vm.options.Root)
}

// launch starts QEMU. Under KVM it waits until the kernel runs, because there
// it may not.
func (vm *virtualMachine) launch(ctx context.Context, accel string) error {
	console, err := os.Create(vm.site.path("console"))
	if err != nil {
		return err
	}
	defer console.Close()
	cmd := exec.Command("qemu-system-x86_64", vm.qemu(accel)...)
	// QEMU keeps a root's changes that nobody wants in its TMPDIR.
	cmd.Env = append(os.Environ(), "TMPDIR="+vm.site.path("scratch"))
	cmd.Stdout, cmd.Stderr = console, console
	readers := map[string]*os.File{}
	for _, port := range ports {
		ours, theirs, err := socketPair()
		if err != nil {
			return err
		}
		cmd.ExtraFiles = append(cmd.ExtraFiles, theirs)
		readers[port] = ours
	}
	vm.process, err = start(cmd)
	for _, theirs := range cmd.ExtraFiles {
		theirs.Close()
	}
	// Without QEMU there is nothing to read, and the readers end at once.
	for port, ours := range readers {
		vm.ports.Go(func() { vm.read(port, ours) })
	}
	if err != nil {
		return err
	}
	if accel != "kvm" {
		return nil
	}
	for begin := time.Now(); !started(console.Name()); {
		if !vm.process.running() || time.Since(begin) > kvmLimit || pause(ctx, 20*time.Millisecond) != nil {
			vm.process.kill()
			vm.ports.Wait()
			return errors.New("no kernel runs under KVM")
		}
	}
	return nil
}

// socketPair is a connection between this process and one that it starts.
func socketPair() (ours, theirs *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	return os.NewFile(uintptr(pair[0]), "port"), os.NewFile(uintptr(pair[1]), "port"), nil
}

// qemu is the arguments of QEMU. What they say of devices is known to the
// guest's initramfs; -nodefaults takes away all else.
func (vm *virtualMachine) qemu(accel string) []string {
	o := vm.options
	argv := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-machine", "q35", "-smp", strconv.Itoa(o.CPUs), "-m", strconv.Itoa(o.Memory),
		"-kernel", vm.guest + "/vmlinuz", "-initrd", vm.guest + "/initrd.img",
		// no_timer_check: on a busy machine the kernel takes the timer for broken, and panics.
		"-append", "root=/dev/vda rw console=ttyS0 loglevel=6 net.ifnames=0 mitigations=off panic=-1 cryptomgr.notests no_timer_check rcupdate.rcu_expedited=1 systemd.show_status=false",
		"-chardev", "file,id=console,append=on,path=" + escape(vm.site.path("console")), "-serial", "chardev:console",
		"-nic", "user,model=virtio-net-pci",
		"-device", "virtio-rng-pci",
		"-device", "virtio-serial-pci",
	}
	if accel == "tcg" {
		// Linux 6.12 crashes in QEMU 7.2 where it finds cmpxchg16b.
		argv = append(argv, "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "Nehalem,-cx16")
	} else {
		argv = append(argv, "-accel", accel, "-cpu", "host")
	}
	for i, port := range ports {
		const first = 3 // of the file descriptors that a child inherits as extras
		argv = append(argv,
			"-chardev", fmt.Sprintf("socket,id=%s,fd=%d", port, first+i),
			"-device", fmt.Sprintf("virtserialport,chardev=%s,name=%[1]s", port))
	}
	// The outer machine is not to lose power, so what the VM has written need
	// not be forced to its disks.
	drive := func(path, serial string, more ...string) {
		id := "disk" + strconv.Itoa(len(argv))
		options := append([]string{"if=none,cache=unsafe", "id=" + id, "file=" + escape(path)}, more...)
		argv = append(argv,
			"-drive", strings.Join(options, ","),
			"-device", "virtio-blk-pci,drive="+id+",serial="+serial)
	}
	if o.Root != "" {
		drive(o.Root, "root", "format=qcow2")
	} else {
		drive(vm.guest+"/root.img", "root", "format=raw", "snapshot=on")
	}
	drive(vm.site.path("payload"), "payload", "format=raw", "read-only=on")
	for _, d := range o.Disks {
		readOnly := "read-only=off"
		if d.ReadOnly {
			readOnly = "read-only=on"
		}
		drive(d.Path, d.Label, "format=raw", readOnly)
	}
	return argv
}

// escape is a path in an option of QEMU, where a comma separates.
func escape(path string) string { return strings.ReplaceAll(path, ",", ",,") }

// read takes what the VM says on a port, until QEMU ends.
func (vm *virtualMachine) read(port string, from *os.File) {
	defer from.Close()
	switch port {
	case outPort:
		cutLine := vm.options.CutPower
		for lines := bufio.NewReader(from); ; {
			line, err := lines.ReadBytes('\n')
			// Before all else: what the VM does meanwhile, it does too much.
			if cutLine != "" && string(line) == cutLine+"\n" {
				cutLine = ""
				vm.cutPower()
			}
			_, _ = vm.options.Output.Write(line)
			if err != nil {
				return
			}
		}
	case statusPort:
		_, _ = io.Copy(&vm.said, from)
	case journalPort:
		journal, err := os.Create(vm.site.path("journal"))
		if err == nil {
			_, _ = io.Copy(journal, from)
			journal.Close()
		}
	}
}

// cutPower ends QEMU, after CutDelay, as the loss of power ends a machine.
func (vm *virtualMachine) cutPower() {
	cut := func() {
		if vm.process.running() {
			vm.cut.Store(true)
			vm.process.kill()
		}
	}
	if vm.options.CutDelay == 0 {
		cut()
		return
	}
	vm.ports.Go(func() {
		select {
		case <-time.After(vm.options.CutDelay):
			cut()
		case <-vm.process.exited:
		}
	})
}

// finish waits for QEMU to end, sets what Wait is to say, and clears up.
func (vm *virtualMachine) finish(ctx context.Context) {
	defer close(vm.done)
	select {
	case <-vm.process.exited:
	case <-ctx.Done():
		vm.process.kill()
	}
	vm.ports.Wait()
	status, err := strconv.Atoi(strings.TrimSpace(vm.said.String()))
	switch {
	case vm.cut.Load():
		vm.err = fmt.Errorf("vm: run: %w", ErrPowerCut)
	case context.Cause(ctx) != nil: // also when its command had ended, but not the VM
		vm.err = fmt.Errorf("vm: run: %w%s", context.Cause(ctx), vm.lastWords())
	case err == nil:
		vm.status = status
		vm.err = vm.unpackJournal()
	default:
		vm.err = fmt.Errorf("vm: run: it was powered off, or rebooted, before its command ended%s", vm.lastWords())
	}
	vm.err = errors.Join(vm.err, vm.clear())
}

// unpackJournal puts the VM's journal files where they are wanted.
func (vm *virtualMachine) unpackJournal() error {
	if vm.options.Journal == "" {
		return nil
	}
	if err := os.MkdirAll(vm.options.Journal, 0o755); err != nil {
		return fmt.Errorf("vm: journal: %w", err)
	}
	if err := quietly(context.Background(), "tar", "-C", vm.options.Journal, "-xf", vm.site.path("journal")); err != nil {
		return fmt.Errorf("vm: journal: %w", err)
	}
	return nil
}

// lastWords are the end of the VM's console, where QEMU complains too. Of a kernel that
// hangs or dies they are its first complaint: others follow from it.
func (vm *virtualMachine) lastWords() string {
	console, _ := os.ReadFile(vm.site.path("console"))
	console = bytes.ReplaceAll(console, []byte("\r"), nil)
	if at := kernelComplaint.FindIndex(console); at != nil {
		lines := bytes.SplitAfterN(console[at[0]:], []byte("\n"), complaintLines+1)
		console = bytes.Join(lines[:min(len(lines), complaintLines)], nil)
	}
	return tail(console)
}

// kernelComplaint is how a kernel begins to say that it hangs or dies.
var kernelComplaint = regexp.MustCompile(`(?m)^.*(BUG: |Oops: |Kernel panic|rcu: INFO: |general protection fault)`)

// complaintLines is how much of it tells where.
const complaintLines = 20

// clear removes what is left of a VM that has ended.
func (vm *virtualMachine) clear() error {
	vm.stop()
	err := vm.site.clear()
	vm.site.lock.Close()
	if err != nil {
		return fmt.Errorf("vm: clear: %w", err)
	}
	return nil
}
