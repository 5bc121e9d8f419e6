package apparmor

import (
	"errors"
	"fmt"
	"os"
	"regexp"
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

// Denied lists what the kernel's log says that these profiles denied, oldest first. If auditd
// runs, the kernel tells auditd instead, and the list is empty.
func Denied(profiles ...string) (all []Denial, err error) {
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
			if d, is := denial(string(record[:n])); is && isAmong(d.Profile, profiles) {
				all = append(all, d)
			}
		}
	}
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
	fields := map[string]string{}
	for _, f := range field.FindAllStringSubmatch(message, -1) {
		if _, twice := fields[f[1]]; !twice {
			fields[f[1]] = strings.Trim(f[2], `"`)
		}
	}
	if fields["apparmor"] != "DENIED" || fields["profile"] == "" {
		return d, false
	}
	if parts := strings.Split(head, ","); len(parts) > 2 {
		microseconds, _ := strconv.ParseInt(parts[2], 10, 64)
		d.Uptime = time.Duration(microseconds) * time.Microsecond
	}
	d.Profile = fields["profile"]
	d.What = strings.TrimSpace(fields["operation"] + " " + fields["name"] + fields["capname"])
	return d, true
}
