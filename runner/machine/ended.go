package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"nspawn-runner/runner/limits"
	"nspawn-runner/runner/systemd"
)

// endFile is a file in the directory of a machine with a program. It says how the program ended.
const endFile = "end.json"

// End is how the program of a machine ended.
type End struct {
	// Code is its exit code, 128+n when a signal killed it.
	Code int `json:"code"`
	// Signal is the name of that signal without SIG, or "".
	Signal string `json:"signal,omitempty"`
	// OutOfMemory is set if the kernel has killed a process of the machine for memory.
	OutOfMemory bool `json:"out_of_memory,omitempty"`
	// Usage is what its machine has used, nil if that is not known.
	Usage *limits.Usage `json:"usage,omitempty"`
}

// String describes the end for people.
func (e End) String() string {
	switch {
	case e.OutOfMemory && e.Code != 0:
		return "it ran out of memory (service_memory_max)"
	case e.Signal != "":
		return fmt.Sprintf("it was killed by signal SIG%s", e.Signal)
	case e.Code == 0:
		return "it has ended, with exit code 0"
	}
	return fmt.Sprintf("it has ended with exit code %d", e.Code)
}

// ended returns how the program of a machine ended. ok is false if it runs, or its end is not known.
func (s Store) ended(record Record) (end End, ok bool) {
	text, err := os.ReadFile(filepath.Join(s.dir(record.ID), endFile))
	if err != nil || json.Unmarshal(text, &end) != nil {
		return End{}, false
	}
	return end, true
}

// endKnown bounds the time from the end of a program until its endFile exists.
const endKnown = 5 * time.Second

// AwaitEnd waits for the end of a machine whose program has ended, and returns how the program ended.
func (s Store) AwaitEnd(ctx context.Context, record Record) (End, error) {
	ctx, cancel := context.WithTimeout(ctx, endKnown)
	defer cancel()
	bus, err := systemd.Host(ctx)
	if err != nil {
		return End{}, err
	}
	defer bus.Close()
	_, _, err = bus.AwaitStopped(ctx, unitName(record.ID))
	if end, ok := s.ended(record); ok {
		return end, nil
	}
	if err == nil {
		err = errKilled
	}
	return End{}, fmt.Errorf("machine %s: %w", Name(record.ID), err)
}

// errKilled is the error if it is not known how a program ended.
var errKilled = errors.New("it has ended: it was stopped, or ran longer than the job may")
