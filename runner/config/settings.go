package config

import (
	"regexp"
	"time"
)

// Config is the settings of a host, or of one of its images.
type Config struct {
	// Of the host.
	StateDir     string
	PlaybookDir  string
	GitlabRunner string
	Environment  map[string]string
	// DownloadCacheMax may be a share of the file system.
	DownloadCacheMax Amount
	// CacheMax and CacheMaxProject may be shares of the file system.
	CacheMax, CacheMaxProject Amount
	// BaseMaxAge is 0 for no bases.
	BaseMaxAge time.Duration
	// MinFreeDisk may be a share of the file system, MinFreeMemory of the
	// memory; 0 for none.
	MinFreeDisk, MinFreeMemory Amount
	// MachinesMemoryMax and MachinesTasksMax hold for all machines together.
	MachinesMemoryMax, MachinesTasksMax Amount
	// Images is what jobs' names of images mean, in the order of the file.
	Images []Meaning
	// DefaultImage is for jobs whose name of an image means none, "" for a refusal.
	DefaultImage string
	// Services is what jobs' names of services mean, in the order of the file.
	Services []Meaning
	// ServicesMax is how many services a job may have.
	ServicesMax uint64
	// OCIImages are names of images that may be pulled, and patterns of names.
	OCIImages []string
	// OCIRegistry is where names without a registry lie, OCIMirror is asked in place of the one
	// that docker uses, maybe with a path; "" for that one. OCIInsecure have no TLS. Each is HOST
	// or HOST:PORT, in lower case.
	OCIRegistry, OCIMirror string
	OCIInsecure            []string
	// OCIImageMax and OCICacheMax may be shares of the file system.
	OCIImageMax, OCICacheMax Amount

	// Of the host, overridden by an image.
	Backend       string
	BootTimeout   time.Duration
	MemoryMax     Amount
	MemorySwapMax Amount
	DiskMax       Amount
	CPUs          float64 // 0: as many as there are
	CPUWeight     uint64
	IOWeight      uint64
	OpenFiles     uint64
	JobTimeout    time.Duration // 0: as GitLab says
	TasksMax      Amount        // of the tasks that the host can have
	MaxAge        time.Duration // 0: never too old
	Network       string
	CloudMetadata bool
	FUSE          bool
	Nesting       bool
	Usage         bool
	// ServicesRequired, and the limits of an image that is the service of a job.
	ServicesRequired bool
	ServiceTimeout   time.Duration
	ServiceMemoryMax Amount
	ServiceCPUs      float64 // 0: as many as there are
	// ServiceDebug lets jobs see what it says.
	ServiceDebug bool

	Mirror     string
	Components []string
	Keyring    string
	Variant    string
	Bootstrap  string
	Build      string

	// SecurityMirror is an address, "none", or "" for what is found.
	SecurityMirror  string
	Updates         bool
	CheckValidUntil bool

	// Of an image.
	ChrootSuite   string
	MaintRecreate bool
	Privileged    bool
	Shell         string
	Test          string
	Devices       []string
	Binds         []Bind
	Include       []string
	// Aliases are further names of it.
	Aliases []string
	// JobEnvironment are variables of all scripts of jobs.
	JobEnvironment map[string]string
	// Service are names of services that it stands for, and patterns of names.
	Service []Pattern
	// ServicePorts are the TCP ports at which it listens as a service.
	ServicePorts []uint16
	// ServiceStart is a script for its machine as a service, Ready a command that succeeds
	// when the service can be used.
	ServiceStart, Ready string
}

// Meaning is an entry of `images` or `services`: what jobs may write, and the image it
// means here.
type Meaning struct {
	Pattern
	Image string
}

// Pattern is what jobs may write: a name, or a pattern of names.
type Pattern struct {
	Written string

	pattern *regexp.Regexp // nil for a name
}

// Bind is a path of the host that an image's machines see.
type Bind struct {
	From, To string
	Writable bool
}
