package image

import (
	"fmt"

	"nspawn-runner/runner/image/debian"
)

// A maintenance that changed nothing needs no new generation: machines that
// start from the old one start the same. Three things must agree, since each
// alone is blind to something:
//
//   - ansible: no task changed anything. One that failed and was ignored may
//     have, and tasks can be told to say nothing (changed_when: false). What a
//     rescue does is counted, so the failure that it answers is not;
//   - dpkg's list of packages, which such a task may have changed;
//   - apt's lists, which ansible does not count when a package is asked for in
//     the same task. With old ones apt-get install fails in a job, once the
//     mirror has newer versions.
//
// What a task changes behind the backs of all three is lost: its author said that it
// changes nothing.

// isUnchanged says whether the playbook left the tree as the current generation is. It
// notes why it did not.
func (d *draft) isUnchanged() bool {
	why := d.tally.Changes()
	if why == "" {
		var err error
		if why, err = debian.Differences(d.current.Path, d.Root); err != nil {
			why = "it cannot be compared with the old one: " + err.Error()
		}
	}
	record, err := d.store.Record(d.current)
	if why == "" && err == nil && record.Format == 0 {
		why = "it makes a first generation of a chroot that has none"
	}
	d.record.Why = why
	unchanged := why == ""
	switch {
	case unchanged:
		why = "no task, no package and no list of apt changed, so nothing is published"
	case why == d.tally.Changes() && why == record.Why:
		why += "; so did the maintenance before: a task that reports a change each time makes a new generation each time"
	}
	d.Note(why)
	fmt.Fprintf(d.Log, "== %s\n", why)
	return unchanged
}

// noteMaintained writes on the record of a generation that a maintenance found
// nothing to change, and with which playbook.
func (s *Store) noteMaintained(generation Generation, copied Record) error {
	record, err := s.Record(generation)
	if err != nil {
		return err
	}
	record.Playbook, record.Maintained = copied.Playbook, copied.Maintained
	return s.writeRecord(generation, record)
}
