package machine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"nspawn-runner/runner/systemd"
)

// Script is a script to be executed in a machine.
type Script struct {
	// Source is read to its end before the script starts.
	Source io.Reader
	// Shell executes it: a path in the machine.
	Shell string
	// Label says what it is, for people who look into the machine.
	Label string
	// Stdout and Stderr receive its output as it comes.
	Stdout, Stderr io.Writer
	// Alone says that no other script may be running: gitlab-runner's come one
	// after the other. What a driver that was killed left running is stopped.
	Alone bool
}

// stopTimeout bounds how long a script that is told to stop may take, before
// the whole machine is stopped.
const stopTimeout = 10 * time.Second

// Outcome is how a script ended.
type Outcome struct {
	// Code is its exit code, 128+n when signal n killed it.
	Code int
	// Signal is the signal that killed it, or 0.
	Signal int
	// OutOfMemory says that the kernel killed processes of the machine for
	// memory while the script ran.
	OutOfMemory bool
}

// Exec executes a script in a machine and waits until nothing of it is left.
// An error means that it cannot be said how the script ended: the machine is
// to blame. When ctx ends, the script and all its descendants are stopped.
//
// may is asked with the machine's record before anything is touched.
func (s Store) Exec(ctx context.Context, id string, may func(Record) error, script Script) (Outcome, error) {
	record, err := readRecord(s.dir(id))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Outcome{}, fmt.Errorf("machine %s: there is none: was it prepared?", Name(id))
	case err != nil:
		return Outcome{}, err
	case record.Leader == nil:
		return Outcome{}, fmt.Errorf("machine %s: it has not come up", Name(id))
	}
	if err := may(record); err != nil {
		return Outcome{}, fmt.Errorf("machine %s: %w", Name(id), err)
	}
	outcome, err := s.exec(ctx, record, script)
	if err != nil {
		if ctx.Err() != nil {
			return outcome, context.Cause(ctx)
		}
		return outcome, s.whyDead(context.WithoutCancel(ctx), record, err)
	}
	return outcome, nil
}

func (s Store) exec(ctx context.Context, record Record, script Script) (Outcome, error) {
	body, err := sealed(script.Source)
	if err != nil {
		return Outcome{}, fmt.Errorf("read the script: %w", err)
	}
	defer body.Close()
	output, err := newStreams(script.Stdout, script.Stderr, record.RootUID)
	if err != nil {
		return Outcome{}, err
	}
	defer output.close()

	bus, err := systemd.Machine(ctx, *record.Leader, record.RootUID)
	if err != nil {
		return Outcome{}, err
	}
	defer bus.Close()
	s.logf("connected to the bus of %s", Name(record.ID))

	if script.Alone {
		if err := s.stopEarlier(ctx, bus, record); err != nil {
			return Outcome{}, err
		}
	}
	unit := "job-" + strings.ToLower(rand.Text()[:10]) + ".service"
	properties := s.scriptProperties(script, body, output)
	before := oomKills(record.Cgroup)
	output.start()

	type ended struct {
		exit systemd.Exit
		err  error
	}
	done := make(chan ended, 1)
	waiting, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()
	go func() {
		exit, err := bus.Wait(waiting, unit, properties)
		done <- ended{exit, err}
	}()
	var end ended
	select {
	case end = <-done:
	case <-ctx.Done():
		s.stopScript(context.WithoutCancel(ctx), bus, unit, record)
		abandon()
		<-done
		end.err = context.Cause(ctx)
	case err := <-output.broken:
		// Nobody reads the log any more, so nobody wants the script's end.
		s.stopScript(context.WithoutCancel(ctx), bus, unit, record)
		abandon()
		<-done
		end.err = fmt.Errorf("write the job's log: %w", err)
	}
	if err := output.finish(); err != nil && end.err == nil {
		end.err = fmt.Errorf("write the job's log: %w", err)
	}
	switch {
	case end.err != nil:
		return Outcome{}, end.err
	case end.exit.Status != 0 && !executed(body):
		return Outcome{}, fmt.Errorf("the machine could not execute the script (%s, status %d)", end.exit.Result, end.exit.Status)
	}
	s.logf("the script has ended: status %d, signal %d", end.exit.Status, end.exit.Signal)
	outcome := Outcome{Code: end.exit.Status, Signal: end.exit.Signal}
	if outcome.Signal > 0 {
		outcome.Code = 128 + outcome.Signal
	}
	outcome.OutOfMemory = oomKills(record.Cgroup) > before
	return outcome, nil
}

// stopScript stops a script's unit, and where the machine does not obey, the
// machine.
func (s Store) stopScript(ctx context.Context, bus *systemd.Bus, unit string, record Record) {
	limit, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	err := bus.Stop(limit, unit)
	if err == nil || errors.Is(err, systemd.ErrGone) {
		return
	}
	s.logf("the script in %s does not stop (%v): stop the machine", Name(record.ID), err)
	host, err := systemd.Host(ctx)
	if err != nil {
		return
	}
	defer host.Close()
	if err := host.Stop(ctx, unitName(record.ID)); err != nil {
		s.logf("stop %s: %v", unitName(record.ID), err)
	}
}

// stopEarlier stops the scripts that are still running in a machine.
func (s Store) stopEarlier(ctx context.Context, bus *systemd.Bus, record Record) error {
	units, err := bus.RunningUnits(ctx, "job-*.service")
	if err != nil {
		return err
	}
	for _, unit := range units {
		s.logf("stop %s, which an earlier call left running", Printable(unit.Name))
		s.stopScript(ctx, bus, unit.Name, record)
	}
	return nil
}

// wrapper moves the script from stdin to another descriptor: left there, a
// command in it that reads stdin would eat the rest of the script. That it
// reads a line first tells us that it ran: see executed.
const wrapper = `read -r line; exec "$0" /dev/fd/3 3<&0 </dev/null`

// executed says whether the wrapper was executed. systemd's word for a failed
// execve is exit status 203, which a script can also have. But the descriptor
// of the script is shared with the wrapper, and with it the position in the
// file; the shell that is then given the script opens it anew.
func executed(body *os.File) bool {
	position, err := body.Seek(0, io.SeekCurrent)
	return err == nil && position > 0
}

func (s Store) scriptProperties(script Script, body *os.File, output *streams) []systemd.Property {
	set := systemd.Set
	return []systemd.Property{
		set("Description", "CI job: "+strings.Map(printable, script.Label)),
		systemd.ExecStart("/bin/sh", "-c", wrapper, script.Shell),
		set("Type", "exec"),
		set("User", "root"),
		set("Environment", []string{
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"HOME=/root", "USER=root", "LOGNAME=root", "SHELL=" + script.Shell,
		}),
		set("StandardInputFileDescriptor", dbus.UnixFD(body.Fd())),
		set("StandardOutputFileDescriptor", dbus.UnixFD(output.stdout.inside.Fd())),
		set("StandardErrorFileDescriptor", dbus.UnixFD(output.stderr.inside.Fd())),
		set("IgnoreSIGPIPE", false),
		// The machine's limits are meant to be the only ones.
		set("TasksMax", ^uint64(0)),
		set("OOMPolicy", "continue"),
		set("TimeoutStopUSec", uint64(5*time.Second/time.Microsecond)),
		// Keep what is known of the unit until it has been asked, then nothing.
		set("CollectMode", "inactive-or-failed"),
		set("AddRef", true),
	}
}

// sealed copies a script into memory that the machine can read and nobody can
// change any more.
func sealed(source io.Reader) (*os.File, error) {
	fd, err := unix.MemfdCreate("script", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	file := os.NewFile(uintptr(fd), "script")
	if _, err := io.Copy(file, source); err != nil {
		file.Close()
		return nil, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		file.Close()
		return nil, err
	}
	seals := unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(file.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		file.Close()
		return nil, fmt.Errorf("seal: %w", err)
	}
	return file, nil
}
