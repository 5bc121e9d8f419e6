// Package harness boots whole hosts for trying and testing nspawn-runner, on
// a machine that need not run systemd itself.
//
// There are two kinds of host. A lab ([StartLab]) is a Debian booted inside
// systemd-nspawn: it is up in about a second, shares the kernel and the
// network of the machine it runs on (the outer machine), and is good for
// nearly everything: machines boot in it, and overlay, btrfs and user
// namespaces work. A VM ([RunVM]) is a Debian booted in QEMU: it is slow, but
// has a kernel of its own, and so can be limited, exhausted, filled up,
// rebooted and have its power cut.
//
// Both start from trees that mmdebstrap builds once and [Tree] keeps in a
// cache; what runs in a host never changes the cached tree.
//
// Nothing stays behind. A host stops when its context is cancelled, and the
// kernel kills it when the process that started it dies. A lab's processes
// live in a process namespace and a control group of their own, its mounts in
// a mount namespace of its own, and its files in one directory; what a killed
// process could not clear away, the next [StartLab] does.
package harness
