package job

import (
	"slices"
	"testing"

	"nspawn-runner/runner/config"
)

// A new setting of images is either one that a runner must allow, and then named by
// gives, or one that any job may choose by naming an image.
func TestOfEachSettingOfImagesItIsKnownWhetherARunnerMustAllowIt(t *testing.T) {
	mustBeAllowed := []string{"privileged", "devices", "binds", "cloud_metadata", "fuse", "nesting"}
	anybodys := []string{
		"backend", "boot_timeout", "memory_max", "memory_swap_max", "cpu_weight", "cpus", "io_weight", "open_files",
		"job_timeout", "tasks_max", "disk_max", "max_age", "network", "usage", "chroot_suite", "mirror", "components",
		"keyring", "include", "variant", "bootstrap", "build", "maint_recreate", "shell", "test", "environment", "aliases",
		"security_mirror", "updates", "check_valid_until",
		"services_required", "service_timeout", "service_memory_max", "service_cpus", "service_debug", "service_ports", "service", "service_start", "ready",
	}
	for _, key := range config.Keys {
		if key.Image && slices.Contains(mustBeAllowed, key.Name) == slices.Contains(anybodys, key.Name) {
			t.Errorf("%s: decide", key.Name)
		}
	}
}
