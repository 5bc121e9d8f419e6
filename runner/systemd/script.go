package systemd

import (
	"context"
	"fmt"

	"github.com/godbus/dbus/v5"
)

// Exit is how a service's main process ended.
type Exit struct {
	// Started is false when the command could not even be executed; Result
	// then has systemd's word for why.
	Started bool
	Result  string
	// Signal is the signal that killed it, or 0; Status its exit status.
	Signal, Status int
}

// Wait runs a transient service of Type=exec to its end: it starts it, waits
// until nothing of it is left, and says how its main process ended. The
// properties must contain AddRef, which keeps the unit's memory of that end.
func (b *Bus) Wait(ctx context.Context, unit string, properties []Property) (Exit, error) {
	path := UnitPath(unit)
	changes := b.watch(path, "org.freedesktop.DBus.Properties", "PropertiesChanged", "")
	defer b.unwatch(changes)
	result, err := b.Start(ctx, unit, properties)
	if err != nil {
		return Exit{}, err
	}
	if result != "done" {
		return Exit{Result: result}, nil
	}
	for {
		signal, err := b.next(ctx, changes)
		if err != nil {
			return Exit{}, err
		}
		if len(signal.Body) < 2 {
			continue
		}
		changed, _ := signal.Body[1].(map[string]dbus.Variant)
		state, _ := changed["ActiveState"].Value().(string)
		if state == "inactive" || state == "failed" {
			return b.exit(ctx, path)
		}
	}
}

// exit reads how a service's main process ended. The unit's Result is no
// help: it is not "success" also for a script that was merely unkind to its
// children.
func (b *Bus) exit(ctx context.Context, path dbus.ObjectPath) (Exit, error) {
	var all map[string]dbus.Variant
	if err := b.call(ctx, path, "org.freedesktop.DBus.Properties.GetAll", []any{&all}, destination+".Service"); err != nil {
		return Exit{}, err
	}
	code, ok1 := all["ExecMainCode"].Value().(int32)
	status, ok2 := all["ExecMainStatus"].Value().(int32)
	if !ok1 || !ok2 {
		return Exit{}, fmt.Errorf("the machine's service manager did not say how the script ended")
	}
	exit := Exit{Started: true}
	exit.Result, _ = all["Result"].Value().(string)
	switch code { // CLD_*: waitid(2)
	case 1:
		exit.Status = int(status)
	case 2, 3:
		exit.Signal = int(status)
	default:
		return Exit{}, fmt.Errorf("the machine's service manager lost the script's process")
	}
	return exit, nil
}
