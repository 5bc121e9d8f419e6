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

// While a job runs, the machine of one of its services may end, a unit in it may fail, or the kernel may kill
// a process for lack of memory. The job's log gets a line about each of these mishaps, once.

// Mishap is what has happened to a service of a job.
type Mishap struct {
	// Service is the name of the service in the job, Role the role of its machine.
	Service string
	Role    Role
	// What are printable lines that describe it.
	What []string
}

// mishapLimit bounds how long a job waits for answers of its services' machines, which may be hostile, or
// busy.
const mishapLimit = 2 * time.Second

// Mishaps returns what has happened to the services of a job since the last call. main is the record of the
// job's main machine.
func (s Store) Mishaps(ctx context.Context, main Record) []Mishap {
	return s.mishapsOf(main, func(r Record) []string {
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

// KnowMishaps notes the units that have failed so far in the services of a job as known: the services are
// ready all the same. main is the record of the job's main machine.
func (s Store) KnowMishaps(ctx context.Context, main Record) {
	together(s.servicesOf(main), func(_ int, r Record) {
		ctx, cancel := context.WithTimeout(ctx, mishapLimit)
		defer cancel()
		if _, now := s.look(ctx, r, known{}); !now.Ended && now.Failed != nil {
			s.note(r.ID, known{Failed: now.Failed})
		}
	})
}

// AllMishaps returns everything that [Store.Mishaps] has returned for the services of a job.
func (s Store) AllMishaps(main Record) []Mishap {
	return s.mishapsOf(main, func(r Record) []string { return s.knownOf(r.ID).Told })
}

// mishapsOf calls what for each service of a job, all at once. It returns those for which what returned lines.
func (s Store) mishapsOf(main Record, what func(Record) []string) []Mishap {
	records := s.servicesOf(main)
	all := make([]Mishap, len(records))
	together(records, func(i int, r Record) { all[i] = Mishap{r.Service, r.Role, what(r)} })
	return slices.DeleteFunc(all, func(m Mishap) bool { return m.What == nil })
}

// servicesOf returns the records of a job's services. main is the record of the job's main machine.
func (s Store) servicesOf(main Record) []Record {
	if len(main.Names) == 0 {
		return nil // a job without services, as most are, need not read all records
	}
	return slices.DeleteFunc(s.beside(main), func(r Record) bool { return r.Service == "" })
}

// together calls do for each of several machines, all at once, and waits for all.
func together(records []Record, do func(i int, r Record)) {
	var all sync.WaitGroup
	for i, r := range records {
		all.Go(func() { do(i, r) })
	}
	all.Wait()
}

// knownFile is a file in a machine's directory. It has the mishaps that the job's log has got.
const knownFile = "mishaps.json"

// known are the known mishaps of a machine.
type known struct {
	// Ended says that the machine has ended.
	Ended bool `json:"ended,omitempty"`
	// Failed are its units that have failed.
	Failed []string `json:"failed,omitempty"`
	// Killed counts the processes that the kernel killed for lack of memory.
	Killed uint64 `json:"killed,omitempty"`
	// Told are the lines about these.
	Told []string `json:"told,omitempty"`
}

// mostTold bounds the lines on one service.
const mostTold = 20

func (s Store) knownOf(id string) (k known) {
	data, err := os.ReadFile(filepath.Join(s.dir(id), knownFile))
	if err != nil || json.Unmarshal(data, &k) != nil {
		return known{} // there is no file, or half of one: a mishap is then told twice
	}
	return k
}

// note replaces the known mishaps. A failure is ignored: the directory of the machine is gone, or the disk is
// full.
func (s Store) note(id string, k known) {
	data, err := json.Marshal(k)
	path := filepath.Join(s.dir(id), knownFile)
	if err == nil && os.WriteFile(path+".new", data, 0o600) == nil {
		_ = os.Rename(path+".new", path)
	}
}

// look returns lines about the mishaps of a machine that are not known yet, and all that is known then. what
// is nil if there is no new mishap.
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
			return what, k // it has done its work
		}
		what = append(what, s.whyDead(context.WithoutCancel(ctx), r, systemd.ErrGone).Error())
	}
	k.Told = append(k.Told, what...)
	if len(k.Told) > mostTold {
		k.Told = k.Told[:mostTold]
	}
	return what, k
}

// endOf returns how the program of a machine ended. A machine with an init is an error.
func (s Store) endOf(ctx context.Context, r Record) (End, error) {
	if r.Program == nil {
		return End{}, errors.New("it has an init")
	}
	return s.AwaitEnd(ctx, r)
}

// failedServices returns the units of a machine that failed. A machine without an init has none.
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

// ask calls do with a connection to the bus of a machine. If the bus passes descriptors, ask stops the
// machine: see [systemd.Holding].
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

// failedOn returns the units that failed, except scripts of this program, and systemd's own services: some of
// these fail in machines on some hosts, and no job needs them.
func failedOn(ctx context.Context, bus *systemd.Bus) ([]systemd.FailedService, error) {
	all, err := bus.FailedServices(ctx)
	return slices.DeleteFunc(all, func(f systemd.FailedService) bool {
		return strings.HasPrefix(f.Name, unitPrefix) || strings.HasPrefix(f.Name, "systemd-")
	}), err
}

// wordFailed describes how a unit failed.
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

// FailedError is the error for units of a machine that failed.
type FailedError struct{ what []string }

// Error names them.
func (e *FailedError) Error() string { return strings.Join(e.what, "; ") }

const (
	// failedEach is the time between two looks at a machine that is waited for.
	failedEach = 200 * time.Millisecond
	// failedGrace is how long a machine may be of use with a service that has failed.
	failedGrace = time.Second
)

// Failed returns a *[FailedError] if units in a job's machine have failed.
func (s Store) Failed(ctx context.Context, job string, role Role) error {
	record, err := s.RecordOf(job, role)
	if err != nil || !record.up() {
		return err
	}
	failed, err := s.failedServices(ctx, record)
	if err != nil {
		return nil // a bus that does not answer is no failed unit
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

// AwaitFailed waits until a unit in a job's machine has failed and stays so for a moment, in which something
// may start it again. Then its error is a *[FailedError]. It has another error if the machine cannot be
// watched, or ctx ends.
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
