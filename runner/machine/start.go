package machine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"nspawn-runner/runner/apparmor"
	"nspawn-runner/runner/failure"
	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/guard"
	"nspawn-runner/runner/host"
	"nspawn-runner/runner/limits"
	"nspawn-runner/runner/network"
	"nspawn-runner/runner/systemd"
)

// Start starts a machine and returns when it is up. If it fails, or ctx ends, nothing is left of the
// machine.
//
// An older machine of the same job, role and owner is removed first, because gitlab-runner tries prepare
// again. A running machine of another owner is left alone, and is an error.
func (s Store) Start(ctx context.Context, spec Spec) error {
	id := spec.id()
	for _, dir := range []string{s.Dir, s.Trash} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	bus, err := systemd.Host(ctx) // first, because removing a machine needs the bus too
	if err != nil {
		return err
	}
	defer bus.Close()
	lock, err := s.lock(ctx, id, true)
	if err != nil {
		return fmt.Errorf("machine %s: %w", Name(id), err)
	}
	defer lock.Close()
	if err := s.makeWay(ctx, bus, spec); err != nil {
		return err
	}
	if err := s.enter(id); err != nil {
		_ = os.Remove(s.dir(id))
		return fmt.Errorf("machine %s: %w", Name(id), err)
	}
	fault.Here("machine: in the index")
	if err := s.launch(ctx, bus, spec, newRecord(spec)); err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		if undoErr := s.removeAtLast(undo, id); undoErr != nil {
			err = fmt.Errorf("%w (and then: %v)", err, undoErr)
		}
		return err
	}
	return nil
}

// makeWay empties the locked directory of a machine. It returns an error if the directory is that of a
// running machine that must stay.
func (s Store) makeWay(ctx context.Context, bus *systemd.Bus, spec Spec) error {
	id := spec.id()
	old, err := readRecord(s.dir(id))
	if errors.Is(err, errNewer) {
		return err
	}
	if err == nil && old.up() && !exists(filepath.Join(s.dir(id), stopping)) {
		switch {
		case old.Job != spec.Job:
			return fmt.Errorf("machine %s: job %s has a machine of this id, which is running", Name(id), old.Job)
		case old.Owner != spec.Owner:
			return fmt.Errorf("machine %s: another GitLab's or runner's job has this id and is running", Name(id))
		case spec.Owner == "":
			return fmt.Errorf("machine %s: it is running already; 'nspawn-runner cleanup --id %s' ends it", Name(id), spec.Job)
		}
	}
	if err == nil && old.Role == Main {
		// Services of an earlier try are in the network of this machine. systemd keeps its unit as
		// long as theirs are bound to it.
		if err := s.collectBeside(ctx, bus, old); err != nil {
			return err
		}
	}
	// The directory may have leftovers of an earlier try that was killed.
	if err := s.clear(ctx, bus, id); err != nil {
		return err
	}
	fault.Here("machine: directory empty")
	return nil
}

// newRecord returns the record of a machine that starts now.
func newRecord(spec Spec) Record {
	now, life := time.Now(), spec.BootTimeout+spec.MaxRuntime
	up := host.Uptime()
	return Record{
		Format:        recordFormat,
		ID:            spec.id(),
		Job:           spec.Job,
		Role:          cmp.Or(spec.Role, Main),
		Owner:         spec.Owner,
		Project:       spec.Project,
		Caller:        spec.Caller,
		CallerDir:     spec.CallerDir,
		Image:         spec.Image,
		Generation:    spec.Generation,
		Chroot:        spec.Chroot,
		Backend:       spec.Backend.Name(),
		Hostname:      spec.Hostname,
		Masked:        spec.Masked,
		Privileged:    spec.Privileged,
		Created:       now,
		Boot:          host.BootID(),
		Expires:       now.Add(life),
		CreatedUptime: up,
		ExpiresUptime: up + life,
		Binds:         spec.Binds,
		Devices:       spec.Devices,
		DiskMax:       spec.Limits.DiskMax,
		Shell:         spec.Shell,
		Quiet:         spec.Quiet,
		Network:       spec.Network.Name(),
		Joins:         spec.Joins,
		Names:         spec.Names,
		Service:       spec.Service,
		Aliases:       spec.Aliases,
		Followed:      spec.Followed,
		CloudMetadata: spec.CloudMetadata,
		NoFUSE:        spec.NoFUSE,
		Environment:   spec.Environment,
		NoNesting:     spec.NoNesting,
		Program:       recorded(spec.Program, spec.Limits),
	}
}

// launch puts a machine on record, makes its root and boots it. After an error, parts of the machine
// may exist.
func (s Store) launch(ctx context.Context, bus *systemd.Bus, spec Spec, record Record) (err error) {
	dir := s.dir(record.ID)
	if spec.Privileged {
		err = record.write(dir)
	} else {
		err = s.writeWithRange(ctx, &record)
	}
	if err != nil {
		return err
	}
	if spec.Recorded != nil {
		spec.Recorded()
	}
	layer, err := spec.Backend.Prepare(dir, spec.Chroot, record.RootUID, spec.Limits.DiskMax)
	if err != nil {
		return fmt.Errorf("machine %s: %w", Name(record.ID), err)
	}
	if layer != nil {
		defer layer.Close() // by then, the machine has mounted it
		record.Layer = layer.Name()
		if err := record.write(dir); err != nil {
			return err
		}
	}
	fault.Here("machine: root prepared")
	if err := limitSlice(ctx, bus, spec.Together); err != nil {
		return err
	}
	beside := beginBeside(ctx, spec.Beside)
	err = s.boot(ctx, bus, spec, &record, beside.leader)
	if err != nil {
		beside.end() // before the machine is removed: units that are bound to it would start it again
		return fmt.Errorf("machine %s of image %s: %w", Name(record.ID), spec.Image, err)
	}
	err = record.write(dir)
	if err == nil {
		s.logf("%s is up", Name(record.ID))
		fault.Here("machine: up")
		err = beside.wait()
	}
	beside.end()
	if err != nil {
		return err
	}
	// After a signal the machine is not wanted any more, so this is a failure.
	return context.Cause(ctx)
}

// clear removes the content of a machine's locked directory, and not the directory itself.
func (s Store) clear(ctx context.Context, bus *systemd.Bus, id string) error {
	entries, err := os.ReadDir(s.dir(id))
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		return nil
	}
	s.logf("remove what is left of an earlier %s", Name(id))
	if err := s.halt(ctx, bus, id); err != nil {
		return err
	}
	for _, entry := range entries {
		if err := s.throwAway(ctx, bus, filepath.Join(s.dir(id), entry.Name()), id); err != nil {
			return err
		}
		fault.Here("machine: part of an earlier one removed")
	}
	return nil
}

// boot starts the machine's service, waits until the machine is up, and adds its first process and its
// control group to the record. It calls leader as soon as the first process is known.
func (s Store) boot(ctx context.Context, bus *systemd.Bus, spec Spec, record *Record, leader func(host.Process)) error {
	// systemd's own timeout would kill the machine before whyNotUp could ask what hangs.
	limit, cancel := context.WithTimeoutCause(ctx, spec.BootTimeout, errBootTimeout)
	defer cancel()
	unit := unitName(record.ID)
	s.logf("start %s: %s on backend %s", unit, spec.Chroot, spec.Backend.Name())
	err := bus.ForgetEarlier(limit, Name(record.ID))
	if err == nil {
		err = s.startConnected(limit, bus, spec, *record, leader)
	}
	switch {
	case err != nil:
	case spec.Program != nil:
		err = s.begin(limit, bus, spec.Program.Plan, record)
	default:
		err = s.awaitUp(limit, bus, record.ID, record)
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return failure.Because(reasonNotUp(err), s.whyNotUp(context.WithoutCancel(ctx), bus, spec, *record, err))
}

// startConnected starts the machine's service and, at the same time, gives the machine its network and
// its limits. The first failure ends everything.
func (s Store) startConnected(ctx context.Context, bus *systemd.Bus, spec Spec, record Record, leader func(host.Process)) error {
	all, ctx := errgroup.WithContext(ctx)
	all.Go(func() error {
		label, err := apparmor.Outside()
		if err != nil { // the machine starts anyway: the host's profiles rarely matter
			s.logf("%s: %v", Name(record.ID), err)
		}
		result, err := bus.Start(ctx, unitName(record.ID), s.properties(spec, record, label))
		if err == nil && result != "done" {
			err = errors.New("it ended while it started")
		}
		fault.Here("machine: service started")
		return err
	})
	all.Go(func() error { return s.fit(ctx, bus, record, leader) })
	return all.Wait()
}

// fit waits for the first process of a machine. Then it gives the machine its network, its share of
// the host's common resources, and the kernel programs that guard it.
func (s Store) fit(ctx context.Context, bus *systemd.Bus, record Record, known func(host.Process)) error {
	leader, err := bus.AwaitLeader(ctx, Name(record.ID))
	if err != nil {
		return fmt.Errorf("wait for its first process: %w", err)
	}
	known(leader)
	path, err := serviceCgroup(leader.PID, unitName(record.ID))
	if err != nil {
		return err
	}
	service, err := os.Open(filepath.Join("/sys/fs/cgroup", path))
	if err != nil {
		return err
	}
	defer service.Close()
	all, ctx := errgroup.WithContext(ctx)
	all.Go(func() error { return s.attach(ctx, leader, service, record) })
	all.Go(func() error { return s.guard(service, record) })
	all.Go(func() error { return limits.Share(ctx, leader, record.RootUID, record.without()...) })
	all.Go(func() error { return s.allowNested(ctx, leader, record) })
	return all.Wait()
}

// attach attaches a machine to its network.
func (s Store) attach(ctx context.Context, leader host.Process, service *os.File, record Record) error {
	attached, err := record.attached()
	if err != nil {
		return err
	}
	ids := record.ids()
	err = attached.Attach(ctx, network.Machine{
		Leader: leader, Service: service, FirstID: ids.first, IDs: ids.count, CloudMetadata: record.CloudMetadata,
	})
	if err == nil {
		s.logf("%s: its network is there", Name(record.ID))
	}
	return failure.Because(failure.Network, err)
}

// guard attaches the kernel programs of package guard to the slice of all machines. A privileged machine
// becomes exempt from them during its boot. Not every kernel supports the programs, so a failure is only
// logged.
func (s Store) guard(service *os.File, record Record) error {
	slice := filepath.Dir(service.Name())
	if !guard.IsGuarded(slice) {
		s.exemptEarlier(slice)
	}
	err := guard.Slice(slice)
	if record.Privileged && !errors.Is(err, guard.ErrNone) { // also if the slice has some of the programs
		err = errors.Join(err, guard.Exempt(service))
	}
	if err != nil {
		s.logf("%s: %v", Name(record.ID), err)
	}
	return nil
}

// exemptEarlier exempts the privileged machines that an older build started before the slice had
// programs.
func (s Store) exemptEarlier(slice string) {
	records, err := s.Records()
	for _, record := range records {
		if !record.Privileged || record.Cgroup == "" {
			continue
		}
		service, openErr := os.Open(filepath.Join(slice, unitName(record.ID)))
		if openErr != nil {
			continue // it has ended
		}
		err = errors.Join(err, guard.Exempt(service))
		service.Close()
	}
	if err != nil {
		s.logf("exempt privileged machines of an older build: %v", err)
	}
}

// awaitUp waits until the machine's service manager says that the system is up. READY=1 does not prove
// that: it also comes in emergency mode and without a bus.
func (s Store) awaitUp(ctx context.Context, bus *systemd.Bus, id string, record *Record) error {
	leader, err := bus.Leader(ctx, Name(id))
	if err != nil {
		return fmt.Errorf("ask machined for its first process: %w", err)
	}
	record.Leader = &leader
	fault.Here("machine: first process known")
	s.logf("%s: systemd-nspawn is ready, its first process is %d", Name(id), leader.PID)
	if record.Cgroup, err = serviceCgroup(leader.PID, unitName(id)); err != nil {
		return err
	}
	inside, err := systemd.Machine(ctx, leader, record.RootUID)
	if err != nil {
		return err
	}
	defer inside.Close()
	fault.Here("machine: its bus answers")
	state, err := inside.AwaitStartup(ctx)
	if err != nil {
		return err
	}
	switch state {
	case "running", "degraded":
		return handOver(ctx, bus, *record)
	}
	return fmt.Errorf("it came up in state %q", state)
}
