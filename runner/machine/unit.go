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

// properties returns the settings of a machine's service: see systemd.service(5), systemd.exec(5),
// systemd.kill(5) and systemd.resource-control(5). Values that spec and record both have come from the
// record. label is the label for AppArmor, or "".
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
		// With --keep-unit, the machine's processes are in the control group of this unit, so these
		// limits hold for them.
		set("Delegate", true),
		set("MemoryMax", spec.Limits.MemoryMax),
		set("MemorySwapMax", spec.Limits.MemorySwapMax),
		set("CPUWeight", spec.Limits.CPUWeight),
		set("CPUQuotaPerSecUSec", quota(spec.Limits.CPUQuota)),
		set("IOWeight", spec.Limits.IOWeight),
		set("TasksMax", spec.Limits.TasksMax),
		// If a job runs out of memory, it loses a process and not its machine.
		set("OOMPolicy", "continue"),
		set("LimitNOFILE", spec.Limits.OpenFiles),
		set("LimitNOFILESoft", uint64(1024)),
		set("LimitCORE", coreLimit()),
		set("LimitCORESoft", uint64(0)),
		// With --keep-unit, systemd-nspawn does not restrict devices. Without this setting, a
		// privileged machine could open the host's disk with mknod(2).
		set("DevicePolicy", "closed"),
		systemd.DeviceAllow(allowed(spec, record.Layer)...),
		// What a job writes to its console goes to the host's journal. The job must not choose the
		// priority, because journald shows emergencies on every terminal. It must not fill the
		// journal either: a line may have 48 KiB.
		set("SyslogLevelPrefix", false),
		set("LogRateLimitIntervalUSec", microseconds(time.Hour)),
		set("LogRateLimitBurst", uint32(consoleLines)),
		// A machine of a job is thrown away, so it need not shut down in good order.
		set("KillMode", "mixed"),
		set("KillSignal", int32(unix.SIGKILL)),
		set("TimeoutStopUSec", microseconds(10*time.Second)),
		// This program enforces these limits itself. systemd's are for the case that it was killed.
		set("TimeoutStartUSec", microseconds(spec.BootTimeout+30*time.Second)),
		set("RuntimeMaxUSec", runtimeMax(spec.MaxRuntime)),
		set("Environment", []string{
			// No other process sees the root, so it needs no lock.
			"SYSTEMD_NSPAWN_LOCK=0",
			// /tmp is on the machine's root, not on a tmpfs of a tenth of the memory.
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
		// The network ends with the main machine.
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

// command returns the hidden command of this program that the service of the machine executes.
func (r Record) command() string {
	if r.Program != nil {
		return "supervise"
	}
	return "boot"
}

// describe returns the description that systemctl shows for a machine.
func describe(r Record) string {
	text := "CI machine " + Name(r.ID)
	if r.Role != Main {
		text += fmt.Sprintf(" (%s of job %s)", r.Role, r.Job)
	}
	return text + ", image " + r.Image
}

// allowed returns the devices that the machine may use.
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

// quota converts processors to systemd's unit: microseconds of processor time per second.
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
