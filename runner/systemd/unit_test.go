package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

func TestUnitPathsAreEscapedAsSystemdDoes(t *testing.T) {
	for unit, want := range map[string]string{
		"nspawn-runner-1.service": "nspawn_2drunner_2d1_2eservice",
		"1.service":               "_31_2eservice",
		"a_b@c.d.service":         "a_5fb_40c_2ed_2eservice",
	} {
		if got := UnitPath(unit); got != dbus.ObjectPath("/org/freedesktop/systemd1/unit/"+want) {
			t.Errorf("%s: %s", unit, got)
		}
	}
}

func TestNothingInACommandIsExpanded(t *testing.T) {
	if got := ExecStart("/bin/sh", "-c", "echo $HOME %n").Value.String(); !strings.Contains(got, "$$HOME %n") {
		t.Error(got)
	}
}

func TestAProcessIsItselfOnlyWhileItLives(t *testing.T) {
	cmd := exec.Command("sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := FindProcess(cmd.Process.Pid)
	if err != nil || !p.Alive() {
		t.Fatalf("%+v, %v", p, err)
	}
	if other := (Process{p.PID, p.Started + 1}); other.Alive() {
		t.Error("another process of the same pid counts as this one")
	}
	cmd.Process.Kill()
	for deadline := time.Now().Add(5 * time.Second); p.Alive(); {
		if time.Now().After(deadline) {
			t.Fatal("a zombie counts as alive")
		}
	}
	cmd.Wait()
	if _, err := p.Root(); err == nil {
		t.Error("the root of a dead process")
	}
}

func TestAProcessesNameDoesNotConfuse(t *testing.T) {
	dir := t.TempDir()
	program := dir + "/a) R 1 (b"
	if err := exec.Command("cp", "/bin/sleep", program).Run(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	p, err := FindProcess(cmd.Process.Pid)
	self, _ := FindProcess(os.Getpid())
	if err != nil || p.Started < self.Started {
		t.Errorf("%+v, %v", p, err)
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
