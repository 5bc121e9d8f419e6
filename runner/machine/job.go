package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"nspawn-runner/runner/fault"
)

// RecordOf returns the record of a job's machine with a role. If there is none, the error is
// fs.ErrNotExist.
func (s Store) RecordOf(job string, role Role) (Record, error) {
	is := func(r Record) bool { return r.Job == job && r.Role == role }
	record, err := readRecord(s.dir(Spec{Job: job, Role: role}.id())) // nearly always
	if err == nil && is(record) || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return record, err
	}
	for _, other := range s.machinesOf(job) {
		if is(other) {
			return other, nil
		}
	}
	return Record{}, fmt.Errorf("%s machine of job %s: %w", role, job, fs.ErrNotExist)
}

// machinesOf returns the records of a job's machines, also of those that start. It leaves out records
// that cannot be read.
func (s Store) machinesOf(job string) (all []Record) {
	entries, _ := os.ReadDir(s.Dir)
	for _, entry := range entries {
		r, err := readRecord(s.dir(entry.Name()))
		if (err == nil || errors.Is(err, errNewer)) && r.Job == job && r.ID == entry.Name() {
			all = append(all, r)
		}
	}
	return all
}

// beside returns the records of the other machines of a machine's job. It leaves out machines of a later
// build.
func (s Store) beside(r Record) (all []Record) {
	for _, other := range s.machinesOf(r.Job) {
		if other.ID != r.ID && other.Owner == r.Owner && other.Format <= recordFormat {
			all = append(all, other)
		}
	}
	return all
}

// Stop removes the machines of a job: their processes, units and directories. It returns when they are
// gone; only the deletion of a large tree may go on in the background. A job without machines is no
// error.
//
// may is called with the record of each machine before anything is touched. If it refuses the main
// machine, that is an error. Another machine that it refuses is left alone.
func (s Store) Stop(ctx context.Context, job string, may func(Record) error) error {
	ids := []string{job} // the main machine may have leftovers without a record
	for _, r := range s.machinesOf(job) {
		if r.ID != job {
			ids = append(ids, r.ID)
		}
	}
	var failed error
	stopped := make([]string, 0, len(ids))
	for _, id := range ids {
		lock, err := s.lockToStop(ctx, id, job, may)
		switch {
		case err == nil:
			defer lock.Close()
		case id != job && (errors.Is(err, fs.ErrNotExist) || errors.As(err, new(refusedError))):
			continue
		case id != job:
			failed = errors.Join(failed, err)
			continue
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
		stopped = append(stopped, id)
	}
	// All are noted before the first one is removed, so that a kill in between leaves none.
	for _, id := range stopped {
		if exists(s.dir(id)) {
			fault.Here("machine: about to be stopped")
			s.noteStop(id, "")
			fault.Here("machine: its stop noted")
		}
	}
	s.endPrograms(ctx, stopped)
	for _, id := range stopped {
		failed = errors.Join(failed, s.removeAtLast(ctx, id))
	}
	return failed
}

// lockToStop locks a machine of a job. If may refuses the machine, the error is a refusedError.
func (s Store) lockToStop(ctx context.Context, id, job string, may func(Record) error) (*os.File, error) {
	lock, err := s.lock(ctx, id, false)
	if err != nil {
		return nil, fmt.Errorf("machine %s: %w", Name(id), err)
	}
	record, err := readRecord(s.dir(id))
	if err != nil && !errors.Is(err, errNewer) {
		return lock, nil
	}
	if record.Job != job {
		err = fmt.Errorf("it belongs to job %s; 'nspawn-runner cleanup --id %[1]s' removes that job's machines", record.Job)
	} else {
		err = may(record)
	}
	if err != nil {
		lock.Close()
		return nil, refusedError{fmt.Errorf("machine %s: %w", Name(id), err)}
	}
	return lock, nil
}

// refusedError is the error for a machine that must not be stopped.
type refusedError struct{ error }

func (e refusedError) Unwrap() error { return e.error }
