package machine

import (
	"fmt"
	"math"
	"time"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/guard"
	"nspawn-runner/runner/journal"
	"nspawn-runner/runner/systemd"
)

// consoleLines is how many lines of a machine's console the host's journal takes in an hour.
const consoleLines = 200

// properties are the settings of a machine's service: what they mean is in
// systemd.service(5), systemd.exec(5), systemd.kill(5) and
// systemd.resource-control(5). What both spec and record say, the record says. label is that of
// AppArmor, or empty.
func (s Store) properties(spec Spec, record Record, label string) []systemd.Property {
	set := systemd.Set
	microseconds := func(d time.Duration) uint64 { return uint64(d / time.Microsecond) }
	properties := []systemd.Property{
		set("Description", describe(record)),
		// journalctl NSPAWN_RUNNER_JOB=ID shows what all machines of a job say.
		set("LogExtraFields", journal.Fields{
			Job: record.Job, Project: record.Project, Image: record.Image, Stage: journal.Console, Service: record.Service,
		}.Extra()),
		systemd.ExecStart(s.Program, record.command(), s.dir(record.ID)),
		set("Type", "notify"),
		set("NotifyAccess", "main"),
		set("Slice", slice),
		// With --keep-unit the machine's processes are in this unit's control
		// group, and these limits are theirs.
		set("Delegate", true),
		set("MemoryMax", spec.Limits.MemoryMax),
		set("MemorySwapMax", spec.Limits.MemorySwapMax),
		set("CPUWeight", spec.Limits.CPUWeight),
		set("CPUQuotaPerSecUSec", quota(spec.Limits.CPUQuota)),
		set("IOWeight", spec.Limits.IOWeight),
		set("TasksMax", spec.Limits.TasksMax),
		// A job that runs out of memory loses a process, not its machine.
		set("OOMPolicy", "continue"),
		set("LimitNOFILE", spec.Limits.OpenFiles),
		set("LimitNOFILESoft", uint64(1024)),
		set("LimitCORE", coreLimit()),
		set("LimitCORESoft", uint64(0)),
		// With --keep-unit nspawn leaves devices to the unit: without this, a
		// privileged machine's mknod opens the host's disk.
		set("DevicePolicy", "closed"),
		systemd.DeviceAllow(allowed(spec, record.Layer)...),
		// What a job writes to its console comes to the host's journal. It is not
		// to choose how urgent that is, since journald shows an emergency at every
		// terminal, nor to push out all else there is: a line may have 48 KiB.
		set("SyslogLevelPrefix", false),
		set("LogRateLimitIntervalUSec", microseconds(time.Hour)),
		set("LogRateLimitBurst", uint32(consoleLines)),
		// Nobody needs a machine to shut down in good order.
		set("KillMode", "mixed"),
		set("KillSignal", int32(unix.SIGKILL)),
		set("TimeoutStopUSec", microseconds(10*time.Second)),
		// Nets below the limits this program keeps itself.
		set("TimeoutStartUSec", microseconds(spec.BootTimeout+30*time.Second)),
		set("RuntimeMaxUSec", runtimeMax(spec.MaxRuntime)),
		set("Environment", []string{
			// The root is private to one mount namespace: nobody to lock out.
			"SYSTEMD_NSPAWN_LOCK=0",
			// /tmp on the machine's root, not on a tmpfs of a tenth of the memory.
			"SYSTEMD_NSPAWN_TMPFS_TMP=0",
		}),
	}
	if label != "" {
		type profile struct {
			IgnoreFailure bool
			Label         string
		}
		properties = append(properties, set("AppArmorProfile", profile{true, label}))
	}
	if record.Joins != nil {
		// The network goes with the other machine.
		properties = append(properties, set("BindsTo", []string{unitName(record.Job)}))
	}
	if !spec.Privileged {
		properties = append(properties, set("RestrictAddressFamilies", struct {
			Allow    bool
			Families []string
		}{true, guard.Families()}))
	}
	return properties
}

// command is which of this program's commands the service of a machine is.
func (r Record) command() string {
	if r.Program != nil {
		return "supervise"
	}
	return "boot"
}

// describe is what systemctl says that a machine is.
func describe(r Record) string {
	text := "CI machine " + Name(r.ID)
	if r.Role != Main {
		text += fmt.Sprintf(" (%s of job %s)", r.Role, r.Job)
	}
	return text + ", image " + r.Image
}

// allowed are the devices that machines may use, and those of this one.
func allowed(spec Spec, layer string) [][2]string {
	pairs := [][2]string{{"char-pts", "rw"}}
	if spec.Program == nil {
		pairs = append(pairs, [2]string{"/dev/net/tun", "rwm"})
	}
	if !spec.NoFUSE {
		pairs = append(pairs, [2]string{"/dev/fuse", "rwm"})
	}
	for _, device := range spec.Devices {
		pairs = append(pairs, device.allow())
	}
	if layer != "" {
		pairs = append(pairs, [2]string{layer, "rw"})
	}
	return pairs
}

// quota is so many processors in systemd's unit: processor time a second.
func quota(processors float64) uint64 {
	if processors <= 0 {
		return math.MaxUint64
	}
	return uint64(processors * float64(time.Second/time.Microsecond))
}

func runtimeMax(d time.Duration) uint64 {
	if d <= 0 {
		return math.MaxUint64
	}
	return uint64(d / time.Microsecond)
}
