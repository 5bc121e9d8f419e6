package runner

import (
	"context"
	"fmt"
	"os/exec"

	"nspawn-runner/runner/host"
	"nspawn-runner/runner/machine"
)

// Machine is a machine that there is.
type Machine struct {
	machine.Record
	Name  string `json:"name"`
	State string `json:"state"`
}

// Machines lists the machines there are.
func (h *Host) Machines() ([]Machine, error) {
	if err := host.NeedRoot(); err != nil {
		return nil, err
	}
	records, err := h.machines.Records()
	if err != nil {
		return nil, err
	}
	all := []Machine{}
	for _, r := range records {
		all = append(all, Machine{r, machine.Name(r.ID), r.State()})
	}
	return all, nil
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
