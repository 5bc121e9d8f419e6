package runner

import (
	"context"
	"fmt"
	"os/exec"
	"text/tabwriter"
	"time"

	"nspawn-runner/runner/host"
	"nspawn-runner/runner/machine"
)

// MachineList prints the machines there are.
func (h *Host) MachineList(asJSON bool) error {
	if err := needRoot(); err != nil {
		return err
	}
	records, err := h.machines().Records()
	if err != nil {
		return err
	}
	if asJSON {
		type row struct {
			machine.Record
			Name  string `json:"name"`
			State string `json:"state"`
		}
		rows := []row{}
		for _, r := range records {
			rows = append(rows, row{r, machine.Name(r.ID), r.State()})
		}
		return h.printJSON(rows)
	}
	table := tabwriter.NewWriter(h.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tSTATE\tIMAGE\tGENERATION\tBACKEND\tAGE")
	for _, r := range records {
		age := r.Age().Round(time.Second)
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", r.ID, r.State(), r.Image, r.Generation, r.Backend, age)
	}
	return table.Flush()
}

// MachineLogin opens a shell in a running machine.
func (h *Host) MachineLogin(ctx context.Context, id string) error {
	if err := h.needHost(); err != nil {
		return err
	}
	if !host.IsTerminal(h.Stdin) { // machinectl would wait for ever
		return fmt.Errorf("machine login wants a terminal; 'nspawn-runner run --id %s SCRIPT' executes a script in a machine", id)
	}
	records, err := h.machines().Records()
	if err != nil {
		return err
	}
	for _, r := range records {
		if r.ID == id && r.State() == "running" {
			shell := exec.CommandContext(ctx, "machinectl", "--quiet", "shell", "root@"+machine.Name(id))
			shell.Stdin, shell.Stdout, shell.Stderr = h.Stdin, h.Stdout, h.Stderr
			return shell.Run()
		}
	}
	return fmt.Errorf("machine %q: no such machine runs; 'nspawn-runner machine list' shows those that do", id)
}
