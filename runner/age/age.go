// Package age words times as people write and read them: 7d, "3h ago".
package age

import (
	"fmt"
	"time"

	"nspawn-runner/runner/config"
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
	return Days(time.Duration(*a))
}

// Type is what the help calls such a value.
func (a *Age) Type() string { return "time" }

// Days words a time as one writes it in a setting: 7d, 36h0m0s.
func Days(d time.Duration) string {
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
