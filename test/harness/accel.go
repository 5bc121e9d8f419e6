package harness

import (
	"os"
	"path/filepath"

	"nspawn-runner/runner/host"
)

// accelerators are the ways in which QEMU may run a VM on this machine, to be
// tried in turn: the processor's, if there is one that has not yet failed
// since the machine booted, and emulation, which always works and is ten
// times slower. NSPAWN_RUNNER_ACCEL ("kvm" or "tcg") overrides.
func accelerators() []string {
	if one := os.Getenv("NSPAWN_RUNNER_ACCEL"); one != "" {
		return []string{one}
	}
	kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil || kvmFailed() {
		return []string{"tcg"}
	}
	kvm.Close()
	return []string{"kvm", "tcg"}
}

// QEMU under a hypervisor without nesting may find KVM and hang. To find that
// takes seconds, so it is remembered, for this boot of the machine, in a file.

func kvmFailed() bool {
	file, boot := kvmVerdict()
	content, err := os.ReadFile(file)
	return err == nil && string(content) == boot
}

func rememberKVMFailed() {
	file, boot := kvmVerdict()
	_ = os.WriteFile(file, []byte(boot), 0o644)
}

func kvmVerdict() (file, boot string) {
	cache, _ := CacheDir()
	return filepath.Join(cache, "kvm-failed"), host.BootID()
}
