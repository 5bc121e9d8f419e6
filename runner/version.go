package runner

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Version is the release that this source is, or becomes.
const Version = "0.1.0"

// packaged is the version of the Debian package of this program: debian/rules sets it.
var packaged string

// Build says of what a program was made.
type Build struct {
	Release string `json:"release"`
	// Package is the version of the Debian package that the program is from, if it is from one.
	Package string `json:"package,omitempty"`
	// Revision is the commit, "" if it is not known: without a clone, and in tests.
	Revision string `json:"revision,omitempty"`
	// Time is the commit's, as in RFC 3339.
	Time string `json:"time,omitempty"`
	// Modified says that files of the clone differed from the commit.
	Modified bool `json:"modified,omitempty"`
	// Go is the version of Go that compiled it.
	Go string `json:"go"`
}

// ThisBuild says of what this program was made. Go writes the revision into what it
// builds: debug.BuildSetting.
func ThisBuild() Build {
	b := Build{Release: Version, Package: packaged, Go: runtime.Version()}
	info, known := debug.ReadBuildInfo()
	if !known {
		return b
	}
	for _, setting := range info.Settings {
		switch setting.Key {
		case "vcs.revision":
			b.Revision = setting.Value
		case "vcs.time":
			b.Time = setting.Value
		case "vcs.modified":
			b.Modified = setting.Value == "true"
		}
	}
	return b
}

// String is a line for people, without its end.
func (b Build) String() string {
	revision := ""
	if b.Revision != "" {
		revision = fmt.Sprintf(", revision %.12s", b.Revision)
		if b.Modified {
			revision += " with changes"
		}
	}
	from := ""
	if b.Package != "" {
		from = ", package " + b.Package
	}
	return "nspawn-runner " + b.Release + from + revision + ", " + b.Go
}
