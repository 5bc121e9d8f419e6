package runner

import (
	"context"
	"fmt"
	"os/exec"

	"nspawn-runner/runner/host"
	"nspawn-runner/runner/limits"
	"nspawn-runner/runner/machine"
)

// Machine is a machine that there is.
type Machine struct {
	machine.Record
	Name string `json:"name"`
	// State is starting, running or dead. Now also knows stopping, and leftover: a machine
	// that belongs to no living gitlab-runner.
	State string `json:"state"`
	Now   string `json:"now"`
	// Stage is what gitlab-runner has the job do: prepare, services, a sub-stage such as
	// build_script, cleanup; "" for nothing.
	Stage      string  `json:"stage,omitempty"`
	AgeSeconds float64 `json:"age_seconds"`
	// Use is what it uses, nil if it is not up.
	Use *MachineUse `json:"use,omitempty"`
}

// MachineUse is what a machine uses.
type MachineUse struct {
	// Processor is the processor time since it was made, in seconds.
	Processor float64 `json:"cpu_seconds"`
	// CPUs is how many processors it uses: since the last look at it, else since it was made.
	CPUs float64 `json:"cpus"`
	limits.Current
	// Written is how many bytes it has written to a disk.
	Written uint64 `json:"written_bytes"`
	// Disk is how much of disk_max it uses, in percent; 0 without one.
	Disk uint64 `json:"disk_percent,omitempty"`
}

// Machines lists the machines there are, the services of a job below its own machine. With
// an earlier list, CPUs are those since then.
func (h *Host) Machines(ctx context.Context, earlier []Machine) ([]Machine, error) {
	if err := host.NeedRoot(); err != nil {
		return nil, err
	}
	standings, err := h.machines.Standings()
	if err != nil {
		return nil, err
	}
	all := []Machine{}
	for _, s := range standings {
		m := Machine{
			Record: s.Record, Name: machine.Name(s.ID), State: s.State(), Now: s.Now, Stage: s.Stage, AgeSeconds: s.Age().Seconds(),
		}
		if use, up := h.machines.UseOf(ctx, s.Record); up {
			m.Use = &MachineUse{Processor: use.Since.Processor.Seconds(), Current: use.Now, Written: use.Since.Written, Disk: use.Disk}
			m.Use.CPUs = m.since(earlier)
		}
		all = append(all, m)
	}
	return all, nil
}

// since is how many processors a machine has used since an earlier list, or since it was made.
func (m Machine) since(earlier []Machine) float64 {
	seconds, processor := m.AgeSeconds, m.Use.Processor
	for _, was := range earlier {
		if was.ID == m.ID && was.Created.Equal(m.Created) && was.Use != nil && was.AgeSeconds < seconds {
			seconds, processor = seconds-was.AgeSeconds, processor-was.Use.Processor
		}
	}
	if seconds <= 0 {
		return 0
	}
	return processor / seconds
}

// Login opens a shell in a running machine. The streams must be a terminal:
// machinectl would wait for ever.
func (h *Host) Login(ctx context.Context, id string, streams Streams) error {
	if err := h.Jobs.NeedHost(); err != nil {
		return err
	}
	records, err := h.machines.Records()
	if err != nil {
		return err
	}
	for _, r := range records {
		if r.ID == id && r.State() == "running" {
			if !r.HasInit() {
				return fmt.Errorf("machine %q executes the program of an image and has no init, so no shell can be opened in it", id)
			}
			shell := exec.CommandContext(ctx, "machinectl", "--quiet", "shell", "root@"+machine.Name(id))
			shell.Stdin, shell.Stdout, shell.Stderr = streams.In, streams.Out, streams.Err
			return shell.Run()
		}
	}
	return fmt.Errorf("machine %q: no such machine runs; 'nspawn-runner machine list' shows those that do", id)
}
