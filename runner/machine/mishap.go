package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/limits"
	"nspawn-runner/runner/printable"
	"nspawn-runner/runner/systemd"
)

// The machine of a service may end while its job runs, and so may the server in it: a unit
// that failed, or a process that the kernel killed for memory. Each of these mishaps is told
// to the job once.

// Mishap is what has happened to the service of a job.
type Mishap struct {
	// Service is the name by which the job knows it, Role that of its machine.
	Service string
	Role    Role
	// What words it: printable lines.
	What []string
}

// mishapLimit bounds how long a job waits for what the machines of its services say. They
// may be hostile, or as busy as the job.
const mishapLimit = 2 * time.Second

// Mishaps are those of the services of a job since this was last asked. The record is that
// of its main machine.
func (s Store) Mishaps(ctx context.Context, main Record) []Mishap {
	return s.ofServices(main, func(r Record) []string {
		ctx, cancel := context.WithTimeout(ctx, mishapLimit)
		defer cancel()
		known := s.knownOf(r.ID)
		what, now := s.look(ctx, r, known)
		if what != nil {
			s.note(r.ID, now)
		}
		return what
	})
}

// KnowMishaps takes for known what has failed so far in the services of a job: they can be used
// all the same. The record is that of its main machine.
func (s Store) KnowMishaps(ctx context.Context, main Record) {
	s.ofServices(main, func(r Record) []string {
		ctx, cancel := context.WithTimeout(ctx, mishapLimit)
		defer cancel()
		if _, now := s.look(ctx, r, known{}); !now.Ended && now.Failed != nil {
			s.note(r.ID, known{Failed: now.Failed})
		}
		return nil
	})
}

// AllMishaps are all that [Store.Mishaps] has told of the services of a job.
func (s Store) AllMishaps(main Record) []Mishap {
	return s.ofServices(main, func(r Record) []string { return s.knownOf(r.ID).Told })
}

// ofServices asks for the mishaps of all services of a job at once.
func (s Store) ofServices(main Record, what func(Record) []string) (all []Mishap) {
	if len(main.Names) == 0 {
		return nil // it has none, as nearly always: no need to read all records
	}
	records := s.beside(main)
	each := make([]Mishap, len(records))
	var asked sync.WaitGroup
	for i, r := range records {
		if r.Service != "" {
			asked.Go(func() { each[i] = Mishap{r.Service, r.Role, what(r)} })
		}
	}
	asked.Wait()
	return slices.DeleteFunc(each, func(m Mishap) bool { return m.What == nil })
}

// knownFile is what the directory of a machine has about the mishaps that its job was told.
const knownFile = "mishaps.json"

// known are mishaps of a machine.
type known struct {
	// Ended says that the machine has.
	Ended bool `json:"ended,omitempty"`
	// Failed are its services that did.
	Failed []string `json:"failed,omitempty"`
	// Killed counts the processes that the kernel killed for memory.
	Killed uint64 `json:"killed,omitempty"`
	// Told are the lines about all that.
	Told []string `json:"told,omitempty"`
}

// mostTold bounds the lines on one service.
const mostTold = 20

func (s Store) knownOf(id string) (k known) {
	data, err := os.ReadFile(filepath.Join(s.dir(id), knownFile))
	if err != nil || json.Unmarshal(data, &k) != nil {
		return known{} // nothing, or half of it: better told twice than not
	}
	return k
}

// note replaces what is known. A machine whose directory is gone needs no note, and on a full
// disk there is none.
func (s Store) note(id string, k known) {
	data, err := json.Marshal(k)
	path := filepath.Join(s.dir(id), knownFile)
	if err == nil && os.WriteFile(path+".new", data, 0o600) == nil {
		_ = os.Rename(path+".new", path)
	}
}

// look looks for mishaps of a machine that are not known, and says what is known then. What
// is nil if there are none.
func (s Store) look(ctx context.Context, r Record, k known) (what []string, now known) {
	if k.Ended || r.Leader == nil {
		return nil, k
	}
	memory, killed := limits.Killed(r.Cgroup, r.Image, k.Killed)
	k.Killed = killed
	if memory != nil {
		memory.Service = true
		what = append(what, memory.String())
	}
	if failed, err := s.failedServices(ctx, r); err == nil {
		for _, f := range failed {
			if !slices.Contains(k.Failed, f.Name) && len(k.Failed) < mostTold {
				k.Failed = append(k.Failed, f.Name)
				what = append(what, wordFailed(f))
			}
		}
	}
	if !r.Leader.Alive() {
		k.Ended = true
		if end, err := s.endOf(ctx, r); err == nil && end.Code == 0 {
			return what, k // it has done what it was there for
		}
		what = append(what, s.whyDead(context.WithoutCancel(ctx), r, systemd.ErrGone).Error())
	}
	k.Told = append(k.Told, what...)
	if len(k.Told) > mostTold {
		k.Told = k.Told[:mostTold]
	}
	return what, k
}

// endOf is how the program of a machine ended, if it is one with a program.
func (s Store) endOf(ctx context.Context, r Record) (End, error) {
	if r.Program == nil {
		return End{}, errors.New("it has an init")
	}
	return s.AwaitEnd(ctx, r)
}

// failedServices are the services of a machine that failed. Where there is no init, there are
// none.
func (s Store) failedServices(ctx context.Context, r Record) (all []systemd.FailedService, err error) {
	if r.Program != nil {
		return nil, nil
	}
	err = s.ask(ctx, r, func(bus *systemd.Bus) (err error) {
		all, err = failedOn(ctx, bus)
		return err
	})
	return all, err
}

// ask does something with a connection to the bus of a machine. One that passes descriptors
// is stopped: see [systemd.Holding].
func (s Store) ask(ctx context.Context, r Record, do func(*systemd.Bus) error) error {
	bus, err := systemd.Machine(ctx, *r.Leader, r.RootUID)
	if err != nil {
		return err
	}
	err = do(bus)
	bus.Close()
	if systemd.Holding() {
		s.stopMachine(context.WithoutCancel(ctx), r, systemd.ErrPassed)
		return systemd.ErrPassed
	}
	return err
}

// failedOn are the services that failed, but for the scripts that this program executes and
// systemd's own: of those, some fail in machines on some hosts, and none is what a job wants.
func failedOn(ctx context.Context, bus *systemd.Bus) ([]systemd.FailedService, error) {
	all, err := bus.FailedServices(ctx)
	return slices.DeleteFunc(all, func(f systemd.FailedService) bool {
		return strings.HasPrefix(f.Name, unitPrefix) || strings.HasPrefix(f.Name, "systemd-")
	}), err
}

// wordFailed says how a service failed.
func wordFailed(f systemd.FailedService) string {
	how := printable.Line(f.Result)
	switch {
	case f.Result == "oom-kill":
		how = "out of memory"
	case f.Signal > 0:
		how = fmt.Sprintf("signal %d, %s", f.Signal, unix.SignalName(unix.Signal(f.Signal)))
	case f.Status > 0:
		how = fmt.Sprintf("exit code %d", f.Status)
	}
	return fmt.Sprintf("%s failed (%s)", printable.Line(f.Name), how)
}

// FailedError is that services in a machine failed.
type FailedError struct{ what []string }

// Error names them.
func (e *FailedError) Error() string { return strings.Join(e.what, "; ") }

const (
	// failedEach is the time between two looks at a machine that is waited for.
	failedEach = 200 * time.Millisecond
	// failedGrace is how long a machine may be of use with a service that has failed.
	failedGrace = time.Second
)

// Failed says which services in a job's machine have failed, in a *[FailedError].
func (s Store) Failed(ctx context.Context, job string, role Role) error {
	record, err := s.RecordOf(job, role)
	if err != nil || !record.up() {
		return err
	}
	failed, err := s.failedServices(ctx, record)
	if err != nil {
		return nil // that a bus does not answer is not that a service failed
	}
	return failedError(failed)
}

func failedError(failed []systemd.FailedService) error {
	if len(failed) == 0 {
		return nil
	}
	e := &FailedError{}
	for _, f := range failed {
		e.what = append(e.what, wordFailed(f))
	}
	return e
}

// AwaitFailed waits until a service in a job's machine has failed, and stays so for a moment:
// something else may be starting it again. Then its error is a *[FailedError]; it has another
// one if that cannot be watched, or ctx ends.
func (s Store) AwaitFailed(ctx context.Context, job string, role Role) error {
	record, err := s.RecordOf(job, role)
	if err != nil || !record.up() {
		return errors.Join(err, ctx.Err())
	}
	return s.ask(ctx, record, func(bus *systemd.Bus) error { return awaitFailed(ctx, bus) })
}

func awaitFailed(ctx context.Context, bus *systemd.Bus) error {
	var since time.Time
	for {
		failed, err := failedOn(ctx, bus)
		switch {
		case err != nil:
			return err
		case len(failed) == 0:
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		case time.Since(since) >= failedGrace:
			return failedError(failed)
		}
		select {
		case <-time.After(failedEach):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
