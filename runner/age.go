package runner

import (
	"fmt"
	"time"

	"nspawn-runner/runner/config"
	"nspawn-runner/runner/image"
)

// Age is a time as one writes it in a setting, and a flag of the command line.
type Age time.Duration

// Set takes 90s, 5m or 7d.
func (a *Age) Set(text string) error {
	value, err := config.ParseDuration(text)
	if err == nil {
		*a = Age(value)
	}
	return err
}

// String is empty for no time at all.
func (a *Age) String() string {
	if *a == 0 {
		return ""
	}
	return days(time.Duration(*a))
}

// Type is what the help calls such a value.
func (a *Age) Type() string { return "time" }

// warnOfAge says it in the job's log when nobody maintained an image for too
// long. The job runs all the same.
func (h *Host) warnOfAge(name string, generation image.Generation, limit time.Duration) {
	record, err := h.images().Record(generation)
	if err == nil && stale(record, limit) {
		h.note("warning: image %s was maintained %s (max_age %s)", name, Ago(maintained(record)), days(limit))
	}
}

// stale says whether a generation's last maintenance is longer ago than the
// limit; 0 is none. When it was is not known of a chroot of the Python original.
func stale(record image.Record, limit time.Duration) bool {
	last := maintained(record)
	return limit > 0 && !last.IsZero() && time.Since(last) > limit
}

// maintained is when a generation's playbook last ran through. Without one, it
// is as old as its tree.
func maintained(record image.Record) time.Time {
	if record.Maintained.IsZero() {
		return record.Built
	}
	return record.Maintained
}

// days words a time as one writes it in a setting: 7d, 36h0m0s.
func days(d time.Duration) string {
	if d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
	return d.String()
}

// Ago words a time for people: "3h ago".
func Ago(t time.Time) string {
	if t.IsZero() {
		return "unknown"
	}
	switch age := time.Since(t); {
	case age < time.Minute:
		return "just now"
	case age < time.Hour:
		return fmt.Sprintf("%dm ago", age/time.Minute)
	case age < 48*time.Hour:
		return fmt.Sprintf("%dh ago", age/time.Hour)
	default:
		return fmt.Sprintf("%dd ago", age/(24*time.Hour))
	}
}
