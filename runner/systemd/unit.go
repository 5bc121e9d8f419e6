package systemd

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/godbus/dbus/v5"

	"nspawn-runner/runner/fault"
)

// Start starts a transient unit and waits until its start job has ended. The
// result is systemd's word: done, failed, timeout, canceled, dependency...
func (b *Bus) Start(ctx context.Context, unit string, properties []Property) (result string, err error) {
	removed := b.watchJob(unit)
	defer b.unwatch(removed)
	job, err := b.launch(ctx, unit, properties)
	if err != nil {
		return "", err
	}
	fault.Here("systemd: start of a unit asked for")
	return b.jobResult(ctx, removed, job)
}

// launch starts a transient unit, and returns the job that does so.
func (b *Bus) launch(ctx context.Context, unit string, properties []Property) (job dbus.ObjectPath, err error) {
	type auxiliary struct {
		Name       string
		Properties []Property
	}
	err = b.call(ctx, managerPath, manager+"StartTransientUnit", []any{&job}, unit, "fail", properties, []auxiliary{})
	return job, err
}

// Stop stops a unit and waits until it has stopped. A unit that is not there
// has. Systemd also calls stopped what it could not kill within the unit's timeout.
func (b *Bus) Stop(ctx context.Context, unit string) error {
	removed := b.watchJob(unit)
	defer b.unwatch(removed)
	var job dbus.ObjectPath
	err := b.call(ctx, managerPath, manager+"StopUnit", []any{&job}, unit, "replace")
	if IsNoSuchUnit(err) {
		return nil
	}
	if err != nil {
		return err
	}
	result, err := b.jobResult(ctx, removed, job)
	if err == nil && result != "done" {
		err = fmt.Errorf("its stop ended as %q", result)
	}
	return err
}

// StartIrreversibly asks for a unit whose start no later job can undo, and does not wait:
// systemctl(1), --job-mode. So a system is shut down.
func (b *Bus) StartIrreversibly(ctx context.Context, unit string) error {
	var job dbus.ObjectPath
	return b.call(ctx, managerPath, manager+"StartUnit", []any{&job}, unit, "replace-irreversibly")
}

// SetProperties changes settings of a unit, until the host's next boot.
func (b *Bus) SetProperties(ctx context.Context, unit string, properties []Property) error {
	return b.call(ctx, managerPath, manager+"SetUnitProperties", nil, unit, true, properties)
}

// ResetFailed forgets that a unit failed, so that systemd unloads it.
func (b *Bus) ResetFailed(ctx context.Context, unit string) error {
	err := b.call(ctx, managerPath, manager+"ResetFailedUnit", nil, unit)
	if IsNoSuchUnit(err) {
		return nil
	}
	return err
}

func (b *Bus) watchJob(unit string) *watcher {
	w := b.watch(managerPath, strings.TrimSuffix(manager, "."), "JobRemoved", ",arg2='"+unit+"'")
	b.subscribe()
	return w
}

func (b *Bus) unwatch(w *watcher) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.watchers {
		if b.watchers[i] == w {
			b.watchers = append(b.watchers[:i], b.watchers[i+1:]...)
			return
		}
	}
}

func (b *Bus) jobResult(ctx context.Context, removed *watcher, job dbus.ObjectPath) (string, error) {
	for {
		e, err := b.next(ctx, removed)
		if err != nil {
			return "", err
		}
		if e.job == string(job) {
			return e.result, nil
		}
	}
}

// SystemState is the state of the whole system under this manager: starting,
// running, degraded, maintenance, stopping...
func (b *Bus) SystemState(ctx context.Context) (string, error) {
	var state string
	err := b.get(ctx, managerPath, strings.TrimSuffix(manager, "."), "SystemState", &state)
	return state, err
}

// ListedUnit is a unit as ListUnits gives it, or a job as ListJobs does.
type ListedUnit struct {
	// Name is the unit's name, State its active state or its job's kind.
	Name, State string
}

// FailedUnits lists the units that failed.
func (b *Bus) FailedUnits(ctx context.Context) ([]ListedUnit, error) {
	var rows [][]any
	if err := b.call(ctx, managerPath, manager+"ListUnitsFiltered", []any{&rows}, []string{"failed"}); err != nil {
		return nil, err
	}
	return listed(rows, 0, 3), nil
}

// RunningUnits lists the units whose names match a shell pattern and of which
// something runs.
func (b *Bus) RunningUnits(ctx context.Context, pattern string) ([]ListedUnit, error) {
	return b.Units(ctx, pattern, "active", "reloading", "activating", "deactivating")
}

// Units lists the loaded units whose names match a shell pattern, and whose
// active state is one of the given ones; without any, all.
func (b *Bus) Units(ctx context.Context, pattern string, states ...string) ([]ListedUnit, error) {
	var rows [][]any
	if err := b.call(ctx, managerPath, manager+"ListUnitsByPatterns", []any{&rows}, append([]string{}, states...), []string{pattern}); err != nil {
		return nil, err
	}
	return listed(rows, 0, 3), nil
}

// Jobs lists the jobs that the manager has queued or is running.
func (b *Bus) Jobs(ctx context.Context) ([]ListedUnit, error) {
	var rows [][]any
	if err := b.call(ctx, managerPath, manager+"ListJobs", []any{&rows}); err != nil {
		return nil, err
	}
	return listed(rows, 1, 3), nil
}

func listed(rows [][]any, name, state int) []ListedUnit {
	var units []ListedUnit
	for _, row := range rows {
		if len(row) > max(name, state) {
			n, _ := row[name].(string)
			s, _ := row[state].(string)
			units = append(units, ListedUnit{n, s})
		}
	}
	return units
}

// Command is the command line of a service, nil for one that is not there.
func (b *Bus) Command(ctx context.Context, unit string) ([]string, error) {
	var commands [][]any
	err := b.Property(ctx, unit, "Service", "ExecStart", &commands)
	if err != nil || len(commands) == 0 || len(commands[0]) < 2 {
		return nil, err
	}
	argv, _ := commands[0][1].([]string)
	return argv, nil
}

// Property reads a property of a unit into out. kind is the last word of the
// property's interface: Unit or Service.
func (b *Bus) Property(ctx context.Context, unit, kind, name string, out any) error {
	return b.get(ctx, unitPath(unit), destination+"."+kind, name, out)
}

func (b *Bus) get(ctx context.Context, path dbus.ObjectPath, iface, name string, out any) error {
	var value dbus.Variant
	if err := b.call(ctx, path, "org.freedesktop.DBus.Properties.Get", []any{&value}, iface, name); err != nil {
		return err
	}
	if err := value.Store(out); err != nil {
		return fmt.Errorf("property %s of %s: %w", name, path, err)
	}
	return nil
}

// backgroundMemory bounds what a background service takes. What those here keep has bounds
// of its own: this is a net below them, and for what the kernel keeps of files.
const backgroundMemory = 256 << 20

// Background starts a service that goes on with work on a directory when this process ends.
// There is one for each kind of work and directory; that it is at work already is success.
// No id can make a machine's service of its name, which begins with kind.
func (b *Bus) Background(ctx context.Context, kind, dir, description string, argv ...string) error {
	sum := sha256.Sum256([]byte(dir))
	_, err := b.launch(ctx, fmt.Sprintf("%s-%x.service", kind, sum[:4]), []Property{
		Set("Description", description),
		ExecStart(argv...),
		Set("Type", "exec"),
		Set("CollectMode", "inactive-or-failed"),
		Set("MemoryMax", uint64(backgroundMemory)),
		Set("CPUWeight", uint64(10)), // nobody waits for it
	})
	if isError(err, destination+".UnitExists") {
		return nil
	}
	return err
}

// unitPath is the object path of a unit: all but letters and digits escaped.
func unitPath(unit string) dbus.ObjectPath {
	var path strings.Builder
	path.WriteString("/org/freedesktop/systemd1/unit/")
	for i := 0; i < len(unit); i++ {
		c := unit[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' && i > 0 {
			path.WriteByte(c)
		} else {
			fmt.Fprintf(&path, "_%02x", c)
		}
	}
	return dbus.ObjectPath(path.String())
}

// AwaitStartup waits until this manager has finished starting the system, and
// returns its state then: running, degraded, maintenance...
func (b *Bus) AwaitStartup(ctx context.Context) (string, error) {
	finished := b.watch(managerPath, strings.TrimSuffix(manager, "."), "StartupFinished", "")
	defer b.unwatch(finished)
	b.subscribe()
	for {
		state, err := b.SystemState(ctx)
		if err != nil || state != "initializing" && state != "starting" {
			return state, err
		}
		if _, err := b.next(ctx, finished); err != nil {
			return "", err
		}
	}
}

// AwaitStopped waits until a unit is neither running nor on its way there or
// back, and returns its active state and result. A unit that systemd has
// forgotten is inactive.
func (b *Bus) AwaitStopped(ctx context.Context, unit string) (state, result string, err error) {
	changes := b.watchState(unit)
	defer b.unwatch(changes)
	for {
		if err := b.Property(ctx, unit, "Unit", "ActiveState", &state); err != nil {
			return "", "", err
		}
		if state == "inactive" || state == "failed" {
			err := b.Property(ctx, unit, "Service", "Result", &result)
			return state, result, err
		}
		if _, err := b.next(ctx, changes); err != nil {
			return state, "", err
		}
	}
}

// subscribe asks systemd to send signals at all; it is not waited for.
func (b *Bus) subscribe() {
	b.conn.Object(destination, managerPath).Go(manager+"Subscribe", dbus.FlagNoReplyExpected, nil)
}

// watchState asks for the changes of a unit's state.
func (b *Bus) watchState(unit string) *watcher {
	w := b.watch(unitPath(unit), "org.freedesktop.DBus.Properties", "PropertiesChanged", "")
	b.subscribe()
	return w
}
