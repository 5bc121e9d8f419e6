package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"

	"nspawn-runner/runner"
	"nspawn-runner/runner/printable"
)

// The table of machines, as top and machine list show it. Names of services and stages are
// strangers' words, so only ASCII of them is shown: other letters may take two columns of a
// terminal, or none.

// machineHeadings are the columns of machineRow.
const machineHeadings = "ID\tSTATE\tPROJECT\tIMAGE\tSTAGE\tAGE\tCPU\tMEMORY\tDISK"

// machineRow is a machine's row. Services stand below their job.
func machineRow(m runner.Machine) string {
	id, stage := m.ID, m.Stage
	if m.Service != "" {
		id, stage = " "+id, "service "+m.Service
	}
	project := "-"
	if m.Project > 0 {
		project = fmt.Sprint(m.Project)
	}
	cpu, memory, disk := "-", "-", "-"
	if u := m.Use; u != nil {
		cpu = against(fmt.Sprintf("%.1f", u.CPUs), u.CPUsMax > 0, fmt.Sprintf("%.1f", u.CPUsMax))
		if u.Memory > 0 {
			memory = against(amount(u.Memory), u.MemoryMax > 0, amount(u.MemoryMax))
		}
		disk = amount(u.Written)
		if m.DiskMax > 0 {
			disk = fmt.Sprintf("%d%%/%s", u.Disk, amount(m.DiskMax))
		}
	}
	cells := []string{id, m.Now, project, m.Image, cmp.Or(stage, "-"), period(m.AgeSeconds), cpu, memory, disk}
	for i, cell := range cells {
		cells[i] = fit(cell)
	}
	return strings.Join(cells, "\t")
}

// printMachines prints a line for each machine.
func printMachines(out io.Writer, machines []runner.Machine) error {
	table := newTable(out)
	fmt.Fprintln(table, machineHeadings+"\tGENERATION\tBACKEND")
	for _, m := range machines {
		fmt.Fprintf(table, "%s\t%s\t%s\n", machineRow(m), fit(m.Generation), m.Backend)
	}
	return table.Flush()
}

// against is a use with its limit, if there is one.
func against(use string, limited bool, limit string) string {
	if limited {
		return use + "/" + limit
	}
	return use
}

// mostCell is how many columns a cell may take.
const mostCell = 25

// fit makes a stranger's word a cell: ASCII, in one line, and short.
func fit(word string) string {
	word = strings.Map(func(r rune) rune {
		if r > '~' {
			return '?'
		}
		return r
	}, strings.ReplaceAll(word, "\t", " "))
	indent := word[:len(word)-len(strings.TrimLeft(word, " "))]
	word = indent + printable.Line(word)
	if len(word) > mostCell {
		word = word[:mostCell-1] + "~"
	}
	return word
}

// amount words bytes in five columns at most.
func amount(bytes uint64) string {
	value, unit := float64(bytes), 0
	for value >= 1000 && unit < 5 {
		value, unit = value/1024, unit+1
	}
	if unit == 0 {
		return fmt.Sprint(bytes)
	}
	digits := 0
	if value < 9.95 {
		digits = 1
	}
	return fmt.Sprintf("%.*f%c", digits, value, " KMGTP"[unit])
}

// period words an age: seconds up to a minute, and so on.
func period(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
}
