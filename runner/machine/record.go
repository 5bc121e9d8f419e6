package machine

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/host"
	"nspawn-runner/runner/network"
)

// recordFormat is increased when the meaning of a record changes. New fields need no new format. The
// program is upgraded while machines run, so a newer build reads records of an older one.
const recordFormat = 1

// Record describes a machine from its start to its end. Spec explains the fields that both have.
type Record struct {
	Format int `json:"format"`
	// ID is the machine's id.
	ID string `json:"id"`
	// Job is the id of the machine's job, Role the machine's role in it. Older builds noted
	// neither: each job had one machine, whose id was the job's.
	Job   string `json:"job,omitempty"`
	Role  Role   `json:"role,omitempty"`
	Owner string `json:"owner,omitempty"`
	// Project is the number of the job's project in GitLab, 0 if it is not known.
	Project int64         `json:"project,omitempty"`
	Caller  *host.Process `json:"caller,omitempty"`
	// CallerDir is the caller's directory for the job.
	CallerDir  *CallerDir `json:"caller_dir,omitempty"`
	Image      string     `json:"image"`
	Generation string     `json:"generation"`
	Chroot     string     `json:"chroot"`
	Backend    string     `json:"backend"`
	// Hostname is the machine's host name, "" for its name.
	Hostname string `json:"hostname,omitempty"`
	// Masked are units that it does not start, besides those that no machine starts.
	Masked     []string `json:"masked,omitempty"`
	Privileged bool     `json:"privileged,omitempty"`
	// RootUID is the host's user id of the machine's root: the first one of the machine's range, 0
	// if the machine is privileged.
	RootUID int `json:"root_uid"`
	// IDs is the size of that range. Older builds did not note it.
	IDs     int       `json:"ids,omitempty"`
	Created time.Time `json:"created"`
	// Boot is the kernel's id of the host's boot in which it was made.
	Boot string `json:"boot,omitempty"`
	// Expires is when the machine's job must be over.
	Expires time.Time `json:"expires"`
	// CreatedUptime and ExpiresUptime are the same times, in nanoseconds since that boot began.
	// Older builds did not note them.
	CreatedUptime time.Duration `json:"created_uptime,omitempty"`
	ExpiresUptime time.Duration `json:"expires_uptime,omitempty"`
	Binds         []Bind        `json:"binds,omitempty"`
	Devices       []Device      `json:"devices,omitempty"`
	// Network is the name of the machine's network. Older builds did not note it, and gave all
	// machines the network of the host.
	Network string `json:"network,omitempty"`
	// Joins is the first process of the machine whose network this one shares, nil if it shares none.
	Joins *host.Process `json:"joins,omitempty"`
	// Names are host names for its loopback, besides its own host name.
	Names []string `json:"names,omitempty"`
	// Service is the name of the service in the job, a printable line; "" if it is not a service.
	Service string `json:"service,omitempty"`
	// Aliases are those of Names that lead to this service. Followed says that the job's log shows
	// what the service says.
	Aliases  []string `json:"aliases,omitempty"`
	Followed bool     `json:"followed,omitempty"`
	// CloudMetadata says that the machine may reach the metadata service of a cloud.
	CloudMetadata bool `json:"cloud_metadata,omitempty"`
	// NoFUSE says that the machine has no /dev/fuse.
	NoFUSE bool `json:"no_fuse,omitempty"`
	// NoNesting says that the machine lacks what containers in it need.
	NoNesting bool `json:"no_nesting,omitempty"`
	// DiskMax is how many bytes the machine may write to its root, 0 for no limit;
	// Layer the block device that its writable layer lies on, if it has one.
	DiskMax uint64 `json:"disk_max,omitempty"`
	Layer   string `json:"layer,omitempty"`
	// Shell executes scripts that name no shell. Older builds did not note it.
	Shell string `json:"shell,omitempty"`
	// Environment are the variables that the image sets for all scripts.
	Environment map[string]string `json:"environment,omitempty"`
	// Quiet leaves out of the job's log what the job used.
	Quiet bool `json:"quiet,omitempty"`
	// Program is set if the machine executes a program instead of an init.
	Program *programRecord `json:"program,omitempty"`

	// Leader is the machine's first process, Cgroup the path of its service's control group. Both
	// are set when the machine is up.
	Leader *host.Process `json:"leader,omitempty"`
	Cgroup string        `json:"cgroup,omitempty"`
}

// programRecord describes the program of a machine.
type programRecord struct {
	StopSignal int `json:"stop_signal"`
	// SharedMemory is how many bytes fit into /dev/shm, 0 for the kernel's default.
	SharedMemory uint64 `json:"shared_memory"`
}

// HasInit says whether the machine boots. A machine without an init executes one program.
func (r Record) HasInit() bool { return r.Program == nil }

// up says whether the machine came up and its first process is alive.
func (r Record) up() bool { return r.Leader != nil && r.Leader.Alive() }

// attached returns the machine's network.
func (r Record) attached() (network.Network, error) {
	named, err := network.Named(cmp.Or(r.Network, network.Host.Name()))
	if err != nil || r.Joins == nil {
		return named, err
	}
	return network.Of(named), nil
}

// hostname returns the machine's host name.
func (r Record) hostname() string { return cmp.Or(r.Hostname, Name(r.ID)) }

// Age returns how long ago the machine was made.
func (r Record) Age() time.Duration {
	if r.CreatedUptime > 0 && r.Boot == host.BootID() {
		return host.Uptime() - r.CreatedUptime
	}
	return time.Since(r.Created)
}

// isOver says whether the time of a machine of this boot is over. Records of older builds have only
// times of the clock, which may be set. These count only without a caller, which would stop the machine.
func (r Record) isOver() bool {
	if r.ExpiresUptime > 0 {
		return host.Uptime() > r.ExpiresUptime
	}
	return r.Caller == nil && time.Now().After(r.Expires)
}

// readRecord reads the record in a machine's directory. A record that is not JSON is a leftover of a
// crash of the host.
func readRecord(dir string) (Record, error) {
	var r Record
	data, err := os.ReadFile(filepath.Join(dir, "record.json"))
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("record of machine %s: %w", filepath.Base(dir), err)
	}
	r.Job, r.Role = cmp.Or(r.Job, r.ID), cmp.Or(r.Role, Main)
	if r.Format > recordFormat {
		return r, fmt.Errorf("record of machine %s: %w (format %d)", filepath.Base(dir), errNewer, r.Format)
	}
	return r, nil
}

// errNewer is the cause if a later build made the machine. readRecord returns the fields that it knows
// all the same.
var errNewer = errors.New("made by a newer nspawn-runner")

// write replaces the record in the machine's directory. It does not wait for the disk, because no
// machine survives a crash of the host.
func (r Record) write(dir string) error {
	data, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "record.json")
	if err := os.WriteFile(path+".new", append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("record of machine %s: %w", r.ID, err)
	}
	fault.Here("machine: next record written, " + r.State())
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("record of machine %s: %w", r.ID, err)
	}
	fault.Here("machine: record written, " + r.State())
	return nil
}

// Records returns the records of all machines, also of those that start. A record that cannot be read
// is an error, because it is not known what its machine uses. A record that does not exist yet, or is a
// leftover of a crash of the host, is left out.
func (s Store) Records() ([]Record, error) {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list machines: %w", err)
	}
	var records []Record
	for _, entry := range entries {
		if entry.Name()[0] == '.' {
			continue
		}
		r, err := readRecord(s.dir(entry.Name()))
		var syntax *json.SyntaxError
		switch {
		case err == nil, errors.Is(err, errNewer):
			records = append(records, r)
		case !errors.Is(err, fs.ErrNotExist) && !errors.As(err, &syntax):
			return nil, err
		}
	}
	return records, nil
}

// State returns starting, running or dead.
func (r Record) State() string {
	switch {
	case r.Leader == nil:
		return "starting"
	case r.Leader.Alive():
		return "running"
	}
	return "dead"
}
