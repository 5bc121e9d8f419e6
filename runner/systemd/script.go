package systemd

import (
	"context"
	"fmt"

	"github.com/godbus/dbus/v5"

	"nspawn-runner/runner/fault"
)

// Exit is how a service's main process ended.
type Exit struct {
	// Result is systemd's word: success, exit-code, signal...
	Result string
	// Signal is the signal that killed it, or 0; Status its exit status.
	Signal, Status int
}

// Wait runs a transient service to its end: it starts it, waits until nothing
// of it is left, and says how its main process ended. The properties must
// contain AddRef, which keeps the unit's memory of that end.
func (b *Bus) Wait(ctx context.Context, unit string, properties []Property) (Exit, error) {
	changes := b.watchState(unit)
	defer b.unwatch(changes)
	if _, err := b.launch(ctx, unit, properties); err != nil {
		return Exit{}, err
	}
	fault.Here("systemd: start of a script asked for")
	return b.awaitExit(ctx, unit, changes)
}

// Rejoin goes on waiting for the end of a service that another connection, now
// lost, has started. What has ended meanwhile is forgotten: IsNoSuchUnit.
func (b *Bus) Rejoin(ctx context.Context, unit string) (Exit, error) {
	changes := b.watchState(unit)
	defer b.unwatch(changes)
	if err := b.call(ctx, managerPath, manager+"RefUnit", nil, unit); err != nil {
		return Exit{}, err
	}
	var state string
	if err := b.Property(ctx, unit, "Unit", "ActiveState", &state); err != nil {
		return Exit{}, err
	}
	if state == "inactive" || state == "failed" {
		if exit, ended, err := b.exit(ctx, unitPath(unit)); err != nil || ended {
			return exit, err
		}
	}
	return b.awaitExit(ctx, unit, changes)
}

func (b *Bus) awaitExit(ctx context.Context, unit string, changes *watcher) (Exit, error) {
	for {
		e, err := b.next(ctx, changes)
		if err != nil {
			return Exit{}, err
		}
		if e.state != "inactive" && e.state != "failed" {
			continue
		}
		// A unit is also inactive before it starts: then nothing has ended yet.
		exit, ended, err := b.exit(ctx, unitPath(unit))
		if err != nil || ended {
			return exit, err
		}
	}
}

// exit reads how a service's main process ended. The unit's Result is no
// help: it is not "success" also for a script that was merely unkind to its
// children.
func (b *Bus) exit(ctx context.Context, path dbus.ObjectPath) (exit Exit, ended bool, err error) {
	var all map[string]dbus.Variant
	if err := b.call(ctx, path, "org.freedesktop.DBus.Properties.GetAll", []any{&all}, destination+".Service"); err != nil {
		return Exit{}, false, err
	}
	code, ok1 := all["ExecMainCode"].Value().(int32)
	status, ok2 := all["ExecMainStatus"].Value().(int32)
	if !ok1 || !ok2 {
		return Exit{}, false, fmt.Errorf("the machine's service manager did not say how the script ended")
	}
	exit.Result, _ = all["Result"].Value().(string)
	switch code { // CLD_*: waitid(2)
	case 1:
		exit.Status = int(status)
	case 2, 3:
		exit.Signal = int(status)
	default:
		return Exit{}, false, nil
	}
	return exit, true, nil
}
