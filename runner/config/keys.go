package config

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"nspawn-runner/runner/network"
	"nspawn-runner/runner/storage"

	"gopkg.in/yaml.v3"
)

// Key is one setting.
type Key struct {
	// Name is the key in the configuration file; in a playbook it has
	// VariablePrefix before it.
	Name string
	// Default is its value where nothing sets it, as one writes it.
	Default string
	// Host and Image say where it may be set: in the file, in a playbook.
	Host, Image bool
	// Doc is one sentence for the table of settings.
	Doc string

	set func(*Config, *yaml.Node) error
}

// Keys is the table of all settings, in the order of the documentation.
var Keys = []Key{
	{"state_dir", "/var/lib/nspawn-runner", true, false,
		"Where chroots, machines and caches lie. On btrfs, chroots are subvolumes.",
		func(c *Config, n *yaml.Node) error { return ownDirectory(n, &c.StateDir) }},
	{"playbook_dir", "/etc/nspawn-runner", true, false,
		"Where playbooks are looked for first; then in `state_dir`.",
		func(c *Config, n *yaml.Node) error { return absolute(n, &c.PlaybookDir) }},
	{"gitlab_runner", "", true, false,
		"The `gitlab-runner` program that jobs use for artifacts and cache, where neither the image nor the caller has one.",
		func(c *Config, n *yaml.Node) error { return absolute(n, &c.GitlabRunner) }},
	{"environment", "", true, false,
		"In the file: variables for building images (`http_proxy: ...`); never stored in an image, never seen by a job.",
		func(c *Config, n *yaml.Node) error { return scalars(n, &c.Environment) }},
	{"backend", "auto", true, true,
		"How a machine gets its writable root: `btrfs`, `overlay`, `tmpfs`, or `auto`: btrfs where the chroot is a subvolume in a state directory on btrfs, else overlay.",
		func(c *Config, n *yaml.Node) error {
			return oneOf(n, &c.Backend, append([]string{"auto"}, storage.Names()...)...)
		}},
	{"boot_timeout", "60s", true, true,
		"How long a machine may take to come up.",
		func(c *Config, n *yaml.Node) error { return duration(n, &c.BootTimeout) }},
	{"memory_max", "40%", true, true,
		"Memory of a machine: bytes with K, M, G or T, a percentage of the host's, or `infinity`. More ends the job's largest process.",
		func(c *Config, n *yaml.Node) error { return c.MemoryMax.parseAtLeast(n, 16<<20) }},
	{"memory_swap_max", "infinity", true, true,
		"Swap of a machine, written the same way.",
		func(c *Config, n *yaml.Node) error { return c.MemorySwapMax.parse(n) }},
	{"cpu_weight", "50", true, true,
		"Share of the processors when they are contended, 1 to 10000; the host's own services have 100.",
		func(c *Config, n *yaml.Node) error { return number(n, &c.CPUWeight, 1, 10000) }},
	{"cpus", "", true, true,
		"How many processors a machine may keep busy: `2`, `1.5`, or `150%`. Without it, all there are.",
		func(c *Config, n *yaml.Node) error { return processors(n, &c.CPUs) }},
	{"io_weight", "100", true, true,
		"Share of the disks when they are contended, 1 to 10000, where the disk's scheduler knows weights.",
		func(c *Config, n *yaml.Node) error { return number(n, &c.IOWeight, 1, 10000) }},
	{"open_files", "524288", true, true,
		"How many files one process may have open; processes begin with 1024 and may raise it to this.",
		func(c *Config, n *yaml.Node) error { return number(n, &c.OpenFiles, 1024, 1<<30) }},
	{"job_timeout", "", true, true,
		"How long a machine may live, however long GitLab lets the job run: `2h`. More is a system failure.",
		func(c *Config, n *yaml.Node) error { return duration(n, &c.JobTimeout) }},
	{"tasks_max", "15%", true, true,
		"Processes and threads of a machine: a number, or a percentage of what the host's kernel can have (the smaller one of `kernel.threads-max` and `kernel.pid_max`).",
		func(c *Config, n *yaml.Node) error { return c.TasksMax.parseTasks(n) }},
	{"disk_max", "infinity", true, true,
		"How much a machine may write to its root: bytes with K, M, G or T, a percentage of the file system of `state_dir` (of the memory with `backend: tmpfs`), or `infinity`. More is \"no space left\" or \"quota exceeded\" for the job. On btrfs this needs simple quotas, which the administrator turns on.",
		func(c *Config, n *yaml.Node) error { return c.DiskMax.parseAtLeast(n, 64<<20) }},
	{"max_age", "", true, true,
		"An image whose last maintenance is longer ago, like `7d`, is called stale: in the logs of its jobs, which run all the same, and by `chroot-list --long`.",
		func(c *Config, n *yaml.Node) error { return duration(n, &c.MaxAge) }},
	{"network", network.Private.Name(), true, true,
		"What a machine can reach: `private`, a network of its own with a way out (needs the package passt); `host`, the host's, with all that listens on its loopback; `none`.",
		func(c *Config, n *yaml.Node) error { return oneOf(n, &c.Network, network.Names()...) }},
	{"cloud_metadata", "false", true, true,
		"Whether a machine reaches the metadata service of the cloud that the host runs in, and with it the keys of the host's own role; with `false` all link-local addresses are out of its reach but the host's resolver.",
		func(c *Config, n *yaml.Node) error { return boolean(n, &c.CloudMetadata) }},
	{"fuse", "true", true, true,
		"Whether a machine has /dev/fuse. Containers, AppImages and sshfs want it; with `false` no program of the host's waits for a file system of a job's, as `ps` and `systemctl status` otherwise may until the job's end.",
		func(c *Config, n *yaml.Node) error { return boolean(n, &c.FUSE) }},
	{"nesting", "true", true, true,
		"Whether machines can hold containers: docker, podman, bubblewrap, sbuild and others need a proc and a sysfs of their own.",
		func(c *Config, n *yaml.Node) error { return boolean(n, &c.Nesting) }},
	{"usage", "true", true, true,
		"One line at the end of each job's log says what it used: time, processor, memory, disk.",
		func(c *Config, n *yaml.Node) error { return boolean(n, &c.Usage) }},
	{"cache_max", "20%", true, false,
		"How much the caches of all jobs may take when no job uses them: bytes with K, M, G or T, a percentage of the file system, or `infinity`. The cache that was not used for the longest time goes first.",
		func(c *Config, n *yaml.Node) error { return c.CacheMax.parse(n) }},
	{"cache_max_project", "5%", true, false,
		"The same for the cache of one project, whose files go, those that were not used for the longest time first. Protected branches' and the others' count apart.",
		func(c *Config, n *yaml.Node) error { return c.CacheMaxProject.parse(n) }},
	{"download_cache_max", "2G", true, false,
		"How much of what builds download over http is kept for the next ones: bytes with K, M, G or T, or a percentage of the file system. What was not used for the longest time goes first. `0`: nothing.",
		func(c *Config, n *yaml.Node) error { return c.DownloadCacheMax.parse(n) }},
	{"base_max_age", "24h", true, false,
		"How old the tree of a bootstrap may be for another image to begin with a copy of it. `0`: each image has a bootstrap of its own.",
		func(c *Config, n *yaml.Node) error { return durationOrNone(n, &c.BaseMaxAge) }},
	{"min_free_disk", "1G", true, false,
		"No job starts with less space on the file system of `state_dir`: bytes with K, M, G or T, or a percentage of it. `0`: jobs start as long as they can.",
		func(c *Config, n *yaml.Node) error { return c.MinFreeDisk.parseFinite(n) }},
	{"min_free_memory", "256M", true, false,
		"No job starts with less memory available on the host, written the same way.",
		func(c *Config, n *yaml.Node) error { return c.MinFreeMemory.parseFinite(n) }},
	{"machines_memory_max", "85%", true, false,
		"Memory of all machines together, written like `memory_max`. Where their own limits add up to more, the largest process of all jobs ends, and none of the host's.",
		func(c *Config, n *yaml.Node) error { return c.MachinesMemoryMax.parseAtLeast(n, 64<<20) }},
	{"machines_tasks_max", "60%", true, false,
		"Processes and threads of all machines together, written like `tasks_max`.",
		func(c *Config, n *yaml.Node) error { return c.MachinesTasksMax.parseTasks(n) }},
	{"chroot_suite", "", false, true,
		"The Debian suite the image is made of: `trixie`, `sid`... Without one, chroot-create takes `unstable`, and maintenance creates nothing.",
		func(c *Config, n *yaml.Node) error { return suite(n, &c.ChrootSuite) }},
	{"mirror", "", true, true,
		"Where the packages come from: an address that begins with http://, https:// or file:///. Without one, the bootstrap program knows Debian's.",
		func(c *Config, n *yaml.Node) error { return mirror(n, &c.Mirror) }},
	{"security_mirror", "auto", true, true,
		"Where `SUITE-security` comes from, if `mirror` is set: an address, `none`, or `auto`: `mirror` itself, or the same address with `debian-security` in place of `debian`, whichever has it.",
		func(c *Config, n *yaml.Node) error { return securityMirror(n, &c.SecurityMirror) }},
	{"updates", "true", true, true,
		"Whether an image of `mirror` gets `SUITE-updates` from it, where it is there.",
		func(c *Config, n *yaml.Node) error { return boolean(n, &c.Updates) }},
	{"check_valid_until", "true", true, true,
		"`false`: a mirror that stands still, as a snapshot does, is taken although its Release files say that their time is over; by apt in the image too.",
		func(c *Config, n *yaml.Node) error { return boolean(n, &c.CheckValidUntil) }},
	{"components", "main", true, true,
		"The mirror's components, a list or words: `main contrib non-free-firmware`.",
		func(c *Config, n *yaml.Node) error { return words(n, component, &c.Components) }},
	{"keyring", "", true, true,
		"File with the keys that sign the mirror, on this host. apt in the image trusts them too. Without one, the keys that the host's apt trusts.",
		func(c *Config, n *yaml.Node) error { return absolute(n, &c.Keyring) }},
	{"include", "", false, true,
		"More packages that the bootstrap installs, a list or words. Images with the same ones share a base; what only one image needs belongs into its tasks.",
		func(c *Config, n *yaml.Node) error { return words(n, packageName, &c.Include) }},
	{"variant", "minbase", true, true,
		"Which packages make up the bare system: `minbase`, `buildd` (and build-essential) or `important` (as an installed Debian).",
		func(c *Config, n *yaml.Node) error { return oneOf(n, &c.Variant, "minbase", "buildd", "important") }},
	{"bootstrap", "auto", true, true,
		"The program that makes it: `mmdebstrap`, `debootstrap`, or `auto`: the first one that is installed.",
		func(c *Config, n *yaml.Node) error {
			return oneOf(n, &c.Bootstrap, "auto", "mmdebstrap", "debootstrap")
		}},
	{"build", "unbooted", true, true,
		"How the playbook runs: `unbooted`, in the image's tree, where services are not started; or `booted`, in a machine as the image's jobs get it, where they are: for databases and users in them, and for tasks that ask systemd, logind or D-Bus.",
		func(c *Config, n *yaml.Node) error { return oneOf(n, &c.Build, "unbooted", "booted") }},
	{"maint_recreate", "false", false, true,
		"Maintenance makes the chroot from scratch every time.",
		func(c *Config, n *yaml.Node) error { return boolean(n, &c.MaintRecreate) }},
	{"privileged", "false", false, true,
		"No user namespace: root in the machine is root on the host. Only for jobs you would give the host's root password.",
		func(c *Config, n *yaml.Node) error { return boolean(n, &c.Privileged) }},
	{"shell", "/bin/bash", false, true,
		"The program in the image that executes jobs' scripts, which are written for bash; `--shell` wins.",
		func(c *Config, n *yaml.Node) error { return absolute(n, &c.Shell) }},
	{"images", "", true, false,
		"What else jobs may write for an image: `{\"debian:12\": bookworm, \"*/ci/*:sha-*\": trixie}`, see [names](#names-of-images).",
		func(c *Config, n *yaml.Node) error { return meanings(n, &c.Images) }},
	{"default_image", "", true, false,
		"The image of jobs that name one which this host does not have, or none. Without it they fail.",
		func(c *Config, n *yaml.Node) error { return image(n, &c.DefaultImage) }},
	{"aliases", "", false, true,
		"Further names of the image, a list or words: `[debian:12, stable]`.",
		func(c *Config, n *yaml.Node) error { return aliases(n, &c.Aliases) }},
	{"environment", "", false, true,
		"In a playbook: variables that all scripts of the image's jobs get (`LANG: C.UTF-8`). They win over the image's /etc/environment; the job's own variables win over both.",
		func(c *Config, n *yaml.Node) error { return variables(n, &c.JobEnvironment) }},
	{"test", "", false, true,
		"Lines of shell, executed with `set -e` in a machine of each new generation; one that fails, or takes 30 minutes, keeps it from being published.",
		func(c *Config, n *yaml.Node) error { return text(n, &c.Test) }},
	{"devices", "", false, true,
		"Character devices of the host, like `/dev/kvm`, that everybody in a machine may read and write. Block devices are refused.",
		func(c *Config, n *yaml.Node) error { return c.setDevices(n) }},
	{"binds", "", false, true,
		"Files and directories of the host that machines see: `FROM`, `FROM:TO`, or with `:rw` at the end writable, if only root can enter a directory above FROM, or its mount is `nosuid`. Otherwise a job may read what everybody may.",
		func(c *Config, n *yaml.Node) error { return c.setBinds(n) }},
}

func text(n *yaml.Node, out *string) error {
	if n.Kind != yaml.ScalarNode || n.Value == "" {
		return fmt.Errorf("want a word")
	}
	*out = n.Value
	return nil
}

func absolute(n *yaml.Node, out *string) error {
	if n.Kind != yaml.ScalarNode || !filepath.IsAbs(n.Value) {
		return fmt.Errorf("want an absolute path")
	}
	*out = filepath.Clean(n.Value)
	return nil
}

// ownDirectory takes a directory in which all is this program's.
func ownDirectory(n *yaml.Node, out *string) error {
	if err := absolute(n, out); err != nil {
		return err
	}
	if *out == "/" {
		return fmt.Errorf("want a directory of its own, not /")
	}
	return nil
}

func boolean(n *yaml.Node, out *bool) error {
	// Decoding into a bool also takes the yes and no of Ansible's YAML 1.1.
	if n.Kind != yaml.ScalarNode || n.Decode(out) != nil {
		return fmt.Errorf("want true or false, not %q", n.Value)
	}
	return nil
}

func number(n *yaml.Node, out *uint64, low, high uint64) error {
	var value uint64
	if n.Kind != yaml.ScalarNode || n.Decode(&value) != nil || value < low || value > high {
		return fmt.Errorf("want a number from %d to %d, not %q", low, high, n.Value)
	}
	*out = value
	return nil
}

// processors takes a number of them, or a percentage of one, as systemd's CPUQuota.
func processors(n *yaml.Node, out *float64) error {
	digits, percent := strings.CutSuffix(n.Value, "%")
	value, err := strconv.ParseFloat(digits, 64)
	if percent {
		value /= 100
	}
	if n.Kind != yaml.ScalarNode || err != nil || !(value >= 0.01 && value <= 10000) {
		return fmt.Errorf("want a number of processors like 2, 1.5 or 150%%, not %q", n.Value)
	}
	*out = value
	return nil
}

func oneOf(n *yaml.Node, out *string, words ...string) error {
	for _, word := range words {
		if n.Kind == yaml.ScalarNode && n.Value == word {
			*out = word
			return nil
		}
	}
	return fmt.Errorf("want one of %q, not %q", words, n.Value)
}

func duration(n *yaml.Node, out *time.Duration) (err error) {
	text := n.Value
	if n.Kind != yaml.ScalarNode {
		text = ""
	}
	*out, err = ParseDuration(text)
	return err
}

// ParseDuration takes 90s, 5m, whole days as in 7d, or a plain number of seconds.
func ParseDuration(text string) (time.Duration, error) {
	value, err := time.ParseDuration(text)
	if seconds, plain := strconv.ParseUint(text, 10, 32); plain == nil {
		value, err = time.Duration(seconds)*time.Second, nil
	}
	if digits, ok := strings.CutSuffix(text, "d"); ok {
		var days uint64
		days, err = strconv.ParseUint(digits, 10, 16)
		value = time.Duration(days) * 24 * time.Hour
	}
	if err != nil || value < time.Second {
		return 0, fmt.Errorf("want a time like 90s, 5m or 7d, at least 1s, not %q", text)
	}
	return value, nil
}

// durationOrNone also takes 0.
func durationOrNone(n *yaml.Node, out *time.Duration) error {
	if n.Kind == yaml.ScalarNode && n.Value == "0" {
		*out = 0
		return nil
	}
	if err := duration(n, out); err != nil {
		return fmt.Errorf("want 0 or a time like 24h, at least 1s, not %q", n.Value)
	}
	return nil
}

func scalars(n *yaml.Node, out *map[string]string) error {
	values := map[string]string{}
	if n.Kind != yaml.MappingNode {
		return fmt.Errorf("want lines of the form \"NAME: value\"")
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i+1].Kind != yaml.ScalarNode {
			return fmt.Errorf("%s: want one value", n.Content[i].Value)
		}
		values[n.Content[i].Value] = n.Content[i+1].Value
	}
	*out = values
	return nil
}
