package job

import (
	"slices"
	"testing"

	"nspawn-runner/runner/config"
)

// permitted are settings of images that a runner must allow, each with a configuration that has it.
var permitted = map[string]config.Config{
	"privileged":     {Privileged: true},
	"devices":        {Devices: []string{"/dev/kvm"}},
	"binds":          {Binds: []config.Bind{{From: "/srv", To: "/srv", Writable: true}}},
	"cloud_metadata": {CloudMetadata: true},
	"fuse":           {FUSE: true},
	"nesting":        {Nesting: true},
}

// A new setting of images either needs permission, or a job may choose it by naming an image.
func TestOfEachSettingOfImagesItIsKnownWhetherItNeedsPermission(t *testing.T) {
	free := []string{
		"backend", "boot_timeout", "memory_max", "memory_swap_max", "cpu_weight", "cpus", "io_weight", "open_files",
		"job_timeout", "tasks_max", "disk_max", "max_age", "network", "usage", "chroot_suite", "mirror", "components",
		"keyring", "include", "variant", "bootstrap", "build", "maint_recreate", "shell", "test", "environment", "aliases",
		"security_mirror", "updates", "check_valid_until",
		"services_required", "service_timeout", "service_memory_max", "service_cpus", "service_debug", "service_ports", "service", "service_start", "ready",
	}
	for _, key := range config.Keys {
		if _, needed := permitted[key.Name]; key.Image && needed == slices.Contains(free, key.Name) {
			t.Errorf("%s: decide", key.Name)
		}
	}
}

func TestAnImageThatGivesMoreNeedsPermissionUnlessTheHostGivesItToAll(t *testing.T) {
	for name, settings := range permitted {
		d := &Driver{}
		if given := d.Gives(settings); len(given) != 1 {
			t.Errorf("%s: %q", name, given)
		}
		if err := d.permit("x", settings, Permission{"y"}); err == nil {
			t.Errorf("%s: it is permitted", name)
		}
		for _, may := range []Permission{{"x"}, {"?"}, everything} {
			if err := d.permit("x", settings, may); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	hosts := &Driver{Config: config.Config{FUSE: true, Nesting: true, CloudMetadata: true}}
	if given := hosts.Gives(hosts.Config); given != nil {
		t.Errorf("what the host gives to all: %q", given)
	}
	if given := hosts.Gives(config.Config{Binds: []config.Bind{{From: "/srv", To: "/srv"}}}); given != nil {
		t.Errorf("a bind that is read-only: %q", given)
	}
}
