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
	// Doc is what docs/configuration.md says of it: a few sentences in Markdown.
	Doc string

	set func(*Config, *yaml.Node) error
}

// Keys is the table of all settings, in the order of docs/configuration.md.
var Keys = []Key{
	{"state_dir", "/var/lib/nspawn-runner", true, false,
		"Directory of the images, machines and caches. On btrfs, images are subvolumes and machines are snapshots.",
		func(c *Config, n *yaml.Node) error { return ownDirectory(n, &c.StateDir) }},
	{"playbook_dir", "/etc/nspawn-runner", true, false,
		"Directory of the playbooks. Playbooks in `state_dir` are found too; `playbook_dir` comes first.",
		func(c *Config, n *yaml.Node) error { return absolute(n, &c.PlaybookDir) }},
	{"gitlab_runner", "", true, false,
		"Path of a `gitlab-runner` program. Jobs use it for artifacts and caches if the image has none, the calling gitlab-runner is not found and none is in `PATH`.",
		func(c *Config, n *yaml.Node) error { return absolute(n, &c.GitlabRunner) }},
	{"backend", "auto", true, true,
		"How a machine gets its writable root: `btrfs`, `overlay`, `tmpfs` or `auto`. `auto` means `btrfs` if the image is a btrfs subvolume in a `state_dir` on btrfs, else `overlay`.",
		func(c *Config, n *yaml.Node) error {
			return oneOf(n, &c.Backend, append([]string{"auto"}, storage.Names()...)...)
		}},
	{"boot_timeout", "60s", true, true,
		"How long a machine may take to boot.",
		func(c *Config, n *yaml.Node) error { return duration(n, &c.BootTimeout) }},
	{"job_timeout", "", true, true,
		"How long a machine may live, even if the timeout in GitLab is longer: `2h`. A job that runs longer is a system failure.",
		func(c *Config, n *yaml.Node) error { return duration(n, &c.JobTimeout) }},
	{"memory_max", "40%", true, true,
		"Memory of a machine, an amount of at least 16M; percentages are of the host's memory. At the limit, the kernel kills the largest process of the job.",
		func(c *Config, n *yaml.Node) error { return c.MemoryMax.parseAtLeast(n, 16<<20) }},
	{"memory_swap_max", "infinity", true, true,
		"Swap of a machine, an amount; percentages are of the host's memory.",
		func(c *Config, n *yaml.Node) error { return c.MemorySwapMax.parse(n) }},
	{"cpu_weight", "50", true, true,
		"Share of the processors when they are busy, from 1 to 10000. The host's own services have 100.",
		func(c *Config, n *yaml.Node) error { return number(n, &c.CPUWeight, 1, 10000) }},
	{"cpus", "", true, true,
		"How many processors a machine may keep busy: `2`, `1.5` or `150%`. Unset means all of them.",
		func(c *Config, n *yaml.Node) error { return processors(n, &c.CPUs) }},
	{"io_weight", "100", true, true,
		"Share of the disks when they are busy, from 1 to 10000. It works only with an I/O scheduler that supports weights.",
		func(c *Config, n *yaml.Node) error { return number(n, &c.IOWeight, 1, 10000) }},
	{"open_files", "524288", true, true,
		"How many files one process may have open (the hard limit). Processes start with a soft limit of 1024.",
		func(c *Config, n *yaml.Node) error { return number(n, &c.OpenFiles, 1024, 1<<30) }},
	{"tasks_max", "15%", true, true,
		"Processes and threads of a machine: a number, `infinity`, or a percentage of the smaller one of `kernel.threads-max` and `kernel.pid_max`.",
		func(c *Config, n *yaml.Node) error { return c.TasksMax.parseTasks(n) }},
	{"disk_max", "infinity", true, true,
		"How much a machine may write to its root, an amount of at least 64M; percentages are of the file system of `state_dir` (of the memory with `backend: tmpfs`). At the limit, writes in the job fail with \"no space left\" or \"quota exceeded\". On btrfs it needs [simple quotas](operation.md#limits-of-the-disk).",
		func(c *Config, n *yaml.Node) error { return c.DiskMax.parseAtLeast(n, 64<<20) }},
	{"shell", "/bin/bash", false, true,
		"Program in the image that executes the scripts of jobs. GitLab writes them for bash. `run --shell` overrides it.",
		func(c *Config, n *yaml.Node) error { return absolute(n, &c.Shell) }},
	{"environment", "", false, true,
		"In a playbook: variables for all scripts of the image's jobs, as in `LANG: C.UTF-8`. They override the image's `/etc/environment`; the job's own variables override both.",
		func(c *Config, n *yaml.Node) error { return variables(n, &c.JobEnvironment) }},
	{"usage", "true", true, true,
		"Whether each job's log ends with a line on what the job used: time, processor, memory and disk.",
		func(c *Config, n *yaml.Node) error { return boolean(n, &c.Usage) }},
	{"network", network.Private.Name(), true, true,
		"Network of a machine: `private` (its own, with a way out; needs the package passt), `host` (the host's) or `none` (loopback only). See [network](network.md).",
		func(c *Config, n *yaml.Node) error { return oneOf(n, &c.Network, network.Names()...) }},
	{"cloud_metadata", "false", true, true,
		"Whether a machine reaches the metadata service of the host's cloud, and with it the keys of the host's own role. With `false`, all link-local addresses are blocked except the host's resolver.",
		func(c *Config, n *yaml.Node) error { return boolean(n, &c.CloudMetadata) }},
	{"fuse", "true", true, true,
		"Whether a machine has `/dev/fuse`. Containers, AppImages and sshfs need it. With `false`, a job cannot make programs of the host, such as `ps` and `systemctl status`, wait for a file system that does not answer.",
		func(c *Config, n *yaml.Node) error { return boolean(n, &c.FUSE) }},
	{"nesting", "true", true, true,
		"Whether machines can run containers. docker, podman, bubblewrap, sbuild and others need the additional proc and sysfs that this setting mounts.",
		func(c *Config, n *yaml.Node) error { return boolean(n, &c.Nesting) }},
	{"devices", "", false, true,
		"Character devices of the host, such as `/dev/kvm`. Every user in a machine may read and write them. Block devices are refused. See [more access](jobs.md#images-that-give-more-access).",
		func(c *Config, n *yaml.Node) error { return c.setDevices(n) }},
	{"binds", "", false, true,
		"Files and directories of the host that machines see: `FROM`, `FROM:TO`, or with `:rw` at the end writable. See [more access](jobs.md#images-that-give-more-access) for the conditions.",
		func(c *Config, n *yaml.Node) error { return c.setBinds(n) }},
	{"privileged", "false", false, true,
		"Turns off the user namespace: root in the machine is root on the host. Use it only for jobs that you would give the host's root password.",
		func(c *Config, n *yaml.Node) error { return boolean(n, &c.Privileged) }},
	{"min_free_disk", "1G", true, false,
		"No job starts with less free space on the file system of `state_dir`: an amount without `infinity`. `0` turns the check off.",
		func(c *Config, n *yaml.Node) error { return c.MinFreeDisk.parseFinite(n) }},
	{"min_free_memory", "256M", true, false,
		"No job starts with less available memory on the host: an amount without `infinity`. `0` turns the check off.",
		func(c *Config, n *yaml.Node) error { return c.MinFreeMemory.parseFinite(n) }},
	{"machines_memory_max", "85%", true, false,
		"Memory of all machines together, an amount of at least 64M; percentages are of the host's memory. At the limit, the kernel kills the largest process of all jobs, and none of the host.",
		func(c *Config, n *yaml.Node) error { return c.MachinesMemoryMax.parseAtLeast(n, 64<<20) }},
	{"machines_tasks_max", "60%", true, false,
		"Processes and threads of all machines together, written like `tasks_max`.",
		func(c *Config, n *yaml.Node) error { return c.MachinesTasksMax.parseTasks(n) }},
	{"cache_max", "20%", true, false,
		"Size of all job caches together, an amount; percentages are of the file system. Caches in use do not count. Above the limit, the cache that was unused for the longest time is removed.",
		func(c *Config, n *yaml.Node) error { return c.CacheMax.parse(n) }},
	{"cache_max_project", "5%", true, false,
		"Size of the cache of one project, an amount; percentages are of the file system. Above the limit, the files that were unused for the longest time are removed. The caches for protected and for other branches count separately.",
		func(c *Config, n *yaml.Node) error { return c.CacheMaxProject.parse(n) }},
	{"images", "", true, false,
		"Further names that jobs may write for an image: `{\"debian:12\": bookworm, \"*/ci/*:sha-*\": trixie}`. See [names of images](images.md#names-of-images).",
		func(c *Config, n *yaml.Node) error { return meanings(n, &c.Images) }},
	{"default_image", "", true, false,
		"Image of jobs that name no image, or one that this host does not have. Unset means that such jobs fail.",
		func(c *Config, n *yaml.Node) error { return image(n, &c.DefaultImage) }},
	{"aliases", "", false, true,
		"Further names of the image: a list, or words separated by spaces or commas, as in `[debian:12, stable]`.",
		func(c *Config, n *yaml.Node) error { return aliases(n, &c.Aliases) }},
	{"chroot_suite", "", false, true,
		"Suite of the distribution: `trixie`, `sid`. Without it, `chroot-create` uses `unstable`, and `chroot-maintenance` does not create the image.",
		func(c *Config, n *yaml.Node) error { return suite(n, &c.ChrootSuite) }},
	{"mirror", "", true, true,
		"Address of the packages; it begins with `http://`, `https://` or `file:///`. Without it, the bootstrap program uses Debian's mirror.",
		func(c *Config, n *yaml.Node) error { return mirror(n, &c.Mirror) }},
	{"security_mirror", "auto", true, true,
		"Address of `SUITE-security`, if `mirror` is set: an address, `none` or `auto`. `auto` tries `mirror` itself and then the same address with `debian-security` in place of `debian`.",
		func(c *Config, n *yaml.Node) error { return securityMirror(n, &c.SecurityMirror) }},
	{"updates", "true", true, true,
		"Whether an image with a `mirror` also uses `SUITE-updates` from it, if it is there.",
		func(c *Config, n *yaml.Node) error { return boolean(n, &c.Updates) }},
	{"check_valid_until", "true", true, true,
		"With `false`, Release files that have expired are accepted, as those of a snapshot; by apt in the image too.",
		func(c *Config, n *yaml.Node) error { return boolean(n, &c.CheckValidUntil) }},
	{"components", "main", true, true,
		"Components of the mirror: a list, or words, as in `main contrib non-free-firmware`.",
		func(c *Config, n *yaml.Node) error { return words(n, component, &c.Components) }},
	{"keyring", "", true, true,
		"File on this host with the keys that sign the mirror. apt in the image trusts them too. Without it, the keys that the host's apt trusts are used.",
		func(c *Config, n *yaml.Node) error { return absolute(n, &c.Keyring) }},
	{"include", "", false, true,
		"Packages that the bootstrap installs in addition: a list, or words. Images with the same packages share a base, so install what only one image needs with its tasks.",
		func(c *Config, n *yaml.Node) error { return words(n, packageName, &c.Include) }},
	{"variant", "minbase", true, true,
		"Packages of the bare system: `minbase`, `buildd` (adds build-essential) or `important` (as in an installed Debian).",
		func(c *Config, n *yaml.Node) error { return oneOf(n, &c.Variant, "minbase", "buildd", "important") }},
	{"bootstrap", "auto", true, true,
		"Program that makes the bare system: `mmdebstrap`, `debootstrap`, or `auto` for the first one that is installed.",
		func(c *Config, n *yaml.Node) error {
			return oneOf(n, &c.Bootstrap, "auto", "mmdebstrap", "debootstrap")
		}},
	{"environment", "", true, false,
		"In the configuration file: variables for builds of images, as in `http_proxy: ...`. They are not stored in images, and jobs do not see them.",
		func(c *Config, n *yaml.Node) error { return scalars(n, &c.Environment) }},
	{"build", "unbooted", true, true,
		"How the playbook runs: `unbooted` in the image's tree, without services, or `booted` in a machine as jobs get it, with its services. See [booted builds](playbooks.md#booted-builds).",
		func(c *Config, n *yaml.Node) error { return oneOf(n, &c.Build, "unbooted", "booted") }},
	{"test", "", false, true,
		"Shell script that runs with `set -e` in a machine of each new generation. If it fails or takes 30 minutes, the generation is not published.",
		func(c *Config, n *yaml.Node) error { return text(n, &c.Test) }},
	{"maint_recreate", "false", false, true,
		"Whether each maintenance builds the image from scratch.",
		func(c *Config, n *yaml.Node) error { return boolean(n, &c.MaintRecreate) }},
	{"max_age", "", true, true,
		"Age of the last maintenance, as in `7d`, after which an image is called stale: in the logs of its jobs, which run all the same, and by `chroot-list --long`.",
		func(c *Config, n *yaml.Node) error { return duration(n, &c.MaxAge) }},
	{"download_cache_max", "2G", true, false,
		"Size of the files that builds have downloaded over http and that are kept for later builds: an amount; percentages are of the file system. The file that was unused for the longest time is removed first. `0` keeps nothing.",
		func(c *Config, n *yaml.Node) error { return c.DownloadCacheMax.parse(n) }},
	{"base_max_age", "24h", true, false,
		"How old the tree of a bootstrap may be when another image starts from a copy of it. `0` turns that off.",
		func(c *Config, n *yaml.Node) error { return durationOrNone(n, &c.BaseMaxAge) }},
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
