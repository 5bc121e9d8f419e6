package apparmor

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Denial is something that a profile denied.
type Denial struct {
	Profile string
	What    string        // "open /etc/x", "capable", as the kernel calls it
	Uptime  time.Duration // of the host when it happened
}

// String says what was denied, for a line of a log.
func (d Denial) String() string {
	return fmt.Sprintf("profile %s denied %s", d.Profile, d.What)
}

// Denied lists what these profiles denied since the host has booted, oldest first: what the
// kernel's log says, or, if auditd runs, which the kernel then tells instead, the log of that.
func Denied(profiles ...string) ([]Denial, error) {
	kernel, err := readKernelLog()
	if err != nil {
		return nil, err
	}
	audit, err := readAuditLog(auditLog)
	if err != nil {
		return nil, err
	}
	all := slices.DeleteFunc(append(kernel, audit...), func(d Denial) bool { return d.Uptime < 0 || !isAmong(d.Profile, profiles) })
	slices.SortStableFunc(all, func(a, b Denial) int { return cmp.Compare(a.Uptime, b.Uptime) })
	return all, nil
}

// readKernelLog lists the denials in the kernel's log.
func readKernelLog() (all []Denial, err error) {
	log, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("AppArmor: read the kernel's log: %w", &os.PathError{Op: "open", Path: "/dev/kmsg", Err: err})
	}
	defer unix.Close(log)
	record := make([]byte, 8192) // the longest
	for {
		n, err := unix.Read(log, record)
		switch {
		case errors.Is(err, unix.EPIPE), errors.Is(err, unix.EINTR): // overwritten meanwhile: go on with the next one
		case errors.Is(err, unix.EAGAIN):
			return all, nil
		case err != nil:
			return nil, fmt.Errorf("AppArmor: read the kernel's log: %w", err)
		default:
			if d, is := denial(string(record[:n])); is {
				all = append(all, d)
			}
		}
	}
}

// auditLog is where auditd writes, as Debian configures it. It begins a new file after 8 MiB.
const auditLog = "/var/log/audit/audit.log"

// latest is how much of it, in bytes, is read.
const latest = 1 << 20

// readAuditLog lists the denials at the end of a log of auditd, if there is one.
func readAuditLog(path string) (all []Denial, err error) {
	log, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("AppArmor: %w", err)
	}
	defer log.Close()
	var text []byte
	size, err := log.Seek(0, io.SeekEnd)
	if err == nil {
		text, err = io.ReadAll(io.NewSectionReader(log, max(0, size-latest), latest))
	}
	var up unix.Timespec // without suspensions, as host.Uptime
	if err == nil {
		err = unix.ClockGettime(unix.CLOCK_MONOTONIC, &up)
	}
	if err != nil {
		return nil, fmt.Errorf("AppArmor: read %s: %w", path, err)
	}
	booted := time.Now().Add(-time.Duration(up.Nano()))
	for line := range strings.Lines(string(text)) {
		if d, at, is := audited(line); is {
			d.Uptime = at.Sub(booted)
			all = append(all, d)
		}
	}
	return all, nil
}

// isAmong says whether a profile is one of these, or a part of one.
func isAmong(profile string, profiles []string) bool {
	for _, p := range profiles {
		if profile == p || strings.HasPrefix(profile, p+"//") {
			return true
		}
	}
	return false
}

// field is a part of an audit message. The kernel writes what has quotes or spaces in it as
// hexadecimal digits without quotes.
var field = regexp.MustCompile(`\b(apparmor|operation|profile|name|capname)=("[^"]*"|\S+)`)

// denial reads a record of /dev/kmsg: "PRIORITY,NUMBER,MICROSECONDS,FLAGS;MESSAGE".
func denial(record string) (d Denial, is bool) {
	head, message, _ := strings.Cut(record, ";")
	message, _, _ = strings.Cut(message, "\n")
	d, is = described(message)
	if parts := strings.Split(head, ","); len(parts) > 2 {
		microseconds, _ := strconv.ParseInt(parts[2], 10, 64)
		d.Uptime = time.Duration(microseconds) * time.Microsecond
	}
	return d, is
}

// stamp is when a message was written, in seconds since 1970.
var stamp = regexp.MustCompile(`\baudit\((\d+)\.(\d{3}):\d+\)`)

// audited reads a line of auditd's log: "type=AVC msg=audit(SECONDS.MILLISECONDS:NUMBER): MESSAGE".
func audited(line string) (d Denial, at time.Time, is bool) {
	d, is = described(line)
	found := stamp.FindStringSubmatch(line)
	if !is || found == nil {
		return d, at, false
	}
	seconds, _ := strconv.ParseInt(found[1], 10, 64)
	milliseconds, _ := strconv.ParseInt(found[2], 10, 64)
	return d, time.Unix(seconds, milliseconds*int64(time.Millisecond)), true
}

// described reads a message of the kernel about a denial, all but its time.
func described(message string) (d Denial, is bool) {
	fields := map[string]string{}
	for _, f := range field.FindAllStringSubmatch(message, -1) {
		if _, twice := fields[f[1]]; !twice {
			fields[f[1]] = strings.Trim(f[2], `"`)
		}
	}
	if fields["apparmor"] != "DENIED" || fields["profile"] == "" {
		return d, false
	}
	d.Profile = fields["profile"]
	d.What = strings.TrimSpace(fields["operation"] + " " + fields["name"] + fields["capname"])
	return d, true
}
