package systemd

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"
)

func TestUnitPathsAreEscapedAsSystemdDoes(t *testing.T) {
	for unit, want := range map[string]string{
		"nspawn-runner-1.service": "nspawn_2drunner_2d1_2eservice",
		"1.service":               "_31_2eservice",
		"a_b@c.d.service":         "a_5fb_40c_2ed_2eservice",
	} {
		if got := unitPath(unit); got != dbus.ObjectPath("/org/freedesktop/systemd1/unit/"+want) {
			t.Errorf("%s: %s", unit, got)
		}
	}
}

func TestNothingInACommandIsExpanded(t *testing.T) {
	if got := ExecStart("/bin/sh", "-c", "echo $HOME %n").Value.String(); !strings.Contains(got, "$$HOME %n") {
		t.Error(got)
	}
}

func TestErrorsOfADeadConnectionSayThatTheBusIsGone(t *testing.T) {
	b := &Bus{}
	if err := b.explain(context.Background(), dbus.ErrClosed); !errors.Is(err, ErrGone) {
		t.Errorf("%v", err)
	}
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(stop)
	if err := b.explain(ctx, context.Canceled); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
	if err := b.explain(ctx, fmt.Errorf("x: %w", dbus.Error{Name: "org.freedesktop.systemd1.NoSuchUnit"})); !IsNoSuchUnit(err) {
		t.Errorf("%v", err)
	}
}

func TestAQueueOfSignalsIsBounded(t *testing.T) {
	q := newQueue()
	for i := range 5000 {
		q.push(&event{job: strconv.Itoa(i)})
	}
	if len(q.events) > 1024 || q.pop().job != strconv.Itoa(5000-1024) {
		t.Errorf("%d events", len(q.events))
	}
}

func TestOfASignalOnlyAFewWordsAreKept(t *testing.T) {
	huge := strings.Repeat("x", 10<<20)
	for _, signal := range []*dbus.Signal{
		{Body: []any{uint32(1), dbus.ObjectPath(huge), "unit", huge}},
		{Body: []any{"iface", map[string]dbus.Variant{"ActiveState": dbus.MakeVariant(huge)}, []string{huge}}},
		{Body: []any{huge, huge, huge, huge}}, {Body: []any{1, 2, 3}}, {},
	} {
		if e := eventOf(signal); len(e.job)+len(e.result)+len(e.state) > 1000 {
			t.Errorf("%d bytes", len(e.job)+len(e.result)+len(e.state))
		}
	}
	e := eventOf(&dbus.Signal{Body: []any{"x", map[string]dbus.Variant{"ActiveState": dbus.MakeVariant("failed")}, []string{}}})
	if e.state != "failed" {
		t.Errorf("%+v", e)
	}
}
