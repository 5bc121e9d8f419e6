package metrics

import "nspawn-runner/runner/failure"

// Results are how jobs end: in GitLab's words, but for failures in the driver's.
const (
	Success       = "success"
	ScriptFailure = "script_failure"
	SystemFailure = "system_failure"
	Canceled      = "canceled"
	Timeout       = "timeout"
)

// What stands for an image where there is none of this host. It is no name of an image.
const (
	// NoImage is for jobs that got none.
	NoImage = ""
	// FromRegistry is for all images of registries: jobs choose their names.
	FromRegistry = "(registry)"
)

const mebi = 1 << 20

// What stages and maintenances count, and Fold keeps.
var (
	Jobs = &Family{
		Name: "jobs_total", Kind: Counter, Labels: []Label{ImageOr(NoImage), Of("result", Success, ScriptFailure, SystemFailure, Canceled, Timeout)},
		Help: "Jobs that ended, by the image of their machine. A job whose prepare gitlab-runner repeats counts for each try.",
	}
	StageDuration = &Family{
		Name: "stage_duration_seconds", Kind: Histogram, Labels: []Label{Of("stage", "prepare", "run", "cleanup")},
		Help:    "How long stages took. That of run is the time of a script of the job.",
		Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
	}
	Failures = &Family{
		Name: "failures_total", Kind: Counter, Labels: []Label{Of("reason", reasons()...)},
		Help: "Jobs, and stages beside them, that failed for another reason than the exit code of a script.",
	}
	LimitHits = &Family{
		Name: "limit_hits_total", Kind: Counter, Labels: []Label{Image, Of("limit", "memory", "tasks", "disk")},
		Help: "Scripts that reached a limit of their machine.",
	}
	JobCPU = &Family{
		Name: "job_cpu_seconds_total", Kind: Counter, Labels: []Label{ImageOr(FromRegistry)},
		Help: "Processor time of the machines of jobs that ended, services included.",
	}
	JobWritten = &Family{
		Name: "job_written_bytes_total", Kind: Counter, Labels: []Label{ImageOr(FromRegistry)},
		Help: "Bytes that the machines of jobs that ended wrote to disks, services included.",
	}
	JobMemoryPeak = &Family{
		Name: "job_memory_peak_bytes", Kind: Histogram, Labels: []Label{ImageOr(FromRegistry)},
		Help:    "Most memory that machines of jobs used, including the files that the kernel cached for them.",
		Buckets: []float64{64 * mebi, 128 * mebi, 256 * mebi, 512 * mebi, 1024 * mebi, 2048 * mebi, 4096 * mebi, 8192 * mebi, 16384 * mebi, 32768 * mebi},
	}
	MaintenanceResult = &Family{
		Name: "maintenance_last_result", Kind: Gauge, Labels: []Label{Image},
		Help: "Whether the last maintenance of the image succeeded: 1 or 0.",
	}
	MaintenanceDuration = &Family{
		Name: "maintenance_duration_seconds", Kind: Gauge, Labels: []Label{Image},
		Help: "How long the last maintenance of the image took.",
	}
)

// Kept are the families that Fold keeps.
var Kept = []*Family{Jobs, StageDuration, Failures, LimitHits, JobCPU, JobWritten, JobMemoryPeak, MaintenanceResult, MaintenanceDuration}

// What is so at the moment.
var (
	BuildInfo = &Family{
		Name: "build_info", Kind: Gauge, Labels: []Label{Any("version"), Any("systemd"), Any("kernel")},
		Help: "Always 1; the labels are the versions of nspawn-runner, of systemd and of Linux.",
	}
	Machines = &Family{
		Name: "machines", Kind: Gauge, Labels: []Label{Of("state", "starting", "running", "stopping", "leftover"), Of("kind", "job", "service")},
		Help: "Machines. Leftovers belong to no living gitlab-runner; gc or the next job removes them.",
	}
	ImageBuilt = &Family{
		Name: "image_built_timestamp_seconds", Kind: Gauge, Labels: []Label{Image},
		Help: "When the image's current generation was built.",
	}
	ImageSize = &Family{
		Name: "image_size_bytes", Kind: Gauge, Labels: []Label{Image},
		Help: "Size of the image's current generation on disk.",
	}
	ImageGenerations = &Family{
		Name: "image_generations", Kind: Gauge, Labels: []Label{Image},
		Help: "Generations of the image on disk.",
	}
	ImageInfo = &Family{
		Name: "image_info", Kind: Gauge, Labels: []Label{Image, Any("generation"), Any("suite")},
		Help: "Always 1; the labels are the image's current generation, and its release if that is known.",
	}
	MaintenanceSuccess = &Family{
		Name: "maintenance_last_success_timestamp_seconds", Kind: Gauge, Labels: []Label{Image},
		Help: "When the image's current generation was maintained last.",
	}
	StateFree = &Family{
		Name: "state_free_bytes", Kind: Gauge,
		Help: "Free space on the file system of the state directory.",
	}
	StateMinFree = &Family{
		Name: "state_min_free_bytes", Kind: Gauge,
		Help: "Free space below which no job starts (min_free_disk).",
	}
	StateCache = &Family{
		Name: "state_cache_bytes", Kind: Gauge,
		Help: "Size of the caches of jobs that no job uses at the moment, as measured at the end of the last job of each.",
	}
	StateDownloads = &Family{
		Name: "state_downloads_bytes", Kind: Gauge,
		Help: "Size of what builds have downloaded.",
	}
	StateTrash = &Family{
		Name: "state_trash_bytes", Kind: Gauge,
		Help: "Size of the trees that are being deleted. It is missing if measuring it takes too long.",
	}
	DoctorProblems = &Family{
		Name: "doctor_problems", Kind: Gauge, Labels: []Label{Of("severity", "warning", "bad")},
		Help: "Findings of the doctor.",
	}
)

// Families are all of them, in the order in which they are written.
var Families = []*Family{
	BuildInfo, Jobs, StageDuration, Failures, LimitHits, JobCPU, JobWritten, JobMemoryPeak,
	Machines, ImageBuilt, ImageSize, ImageGenerations, ImageInfo,
	MaintenanceSuccess, MaintenanceResult, MaintenanceDuration,
	StateFree, StateMinFree, StateCache, StateDownloads, StateTrash, DoctorProblems,
}

func reasons() (words []string) {
	for _, reason := range failure.Reasons {
		words = append(words, string(reason))
	}
	return words
}
