// Package journal writes lines about jobs to the host's journal, with fields by which
// journalctl finds them:
//
//	journalctl NSPAWN_RUNNER_JOB=7
//
// Consoles of machines have the same fields, by their units. All values are bounded and
// printable: ids and names of services are the job's. A host without a journal, or with one
// that hangs, neither fails a stage nor slows it down.
package journal

import (
	"os"
	"regexp"
	"strconv"
	"time"

	"github.com/coreos/go-systemd/v22/journal"

	"nspawn-runner/runner/printable"
)

// Fields say which job something is about. What is not known is empty.
type Fields struct {
	Job     string
	Project int64 // GitLab's number, 0 if it is not known
	Image   string
	// Stage is one of gitlab-runner's, or Console for what a machine prints.
	Stage string
	// Service is the name of a service of the job.
	Service string
	// Result and Reason are how a job or a stage ended, in the words of metrics.
	Result, Reason string
}

// Console is the stage of what machines print.
const Console = "console"

// unfit is what no value has: units cannot have all of that in fields.
var unfit = regexp.MustCompile(`[^A-Za-z0-9._:/@+-]`)

// mostValue bounds a value, in bytes.
const mostValue = 128

// all are the fields that are known, by their names in the journal.
func (f Fields) all() map[string]string {
	project := ""
	if f.Project > 0 {
		project = strconv.FormatInt(f.Project, 10)
	}
	known := map[string]string{}
	for name, value := range map[string]string{
		"JOB": f.Job, "PROJECT": project, "IMAGE": f.Image, "STAGE": f.Stage, "SERVICE": f.Service, "RESULT": f.Result, "REASON": f.Reason,
	} {
		if value = unfit.ReplaceAllString(value, "_"); value != "" {
			known["NSPAWN_RUNNER_"+name] = value[:min(len(value), mostValue)]
		}
	}
	return known
}

// Extra are the fields for a unit's LogExtraFields: systemd.exec(5).
func (f Fields) Extra() (lines [][]byte) {
	for name, value := range f.all() {
		lines = append(lines, []byte(name+"="+value))
	}
	return lines
}

// socket is where the journal listens: systemd-journald.service(8).
const socket = "/run/systemd/journal/socket"

// sendLimit is how long the journal may take to accept a line.
const sendLimit = 100 * time.Millisecond

// Info writes a line about what went as it should.
func Info(f Fields, message string) { send(f, message, journal.PriInfo) }

// Warning writes a line about what did not.
func Warning(f Fields, message string) { send(f, message, journal.PriWarning) }

func send(f Fields, message string, priority journal.Priority) {
	if _, err := os.Stat(socket); err != nil {
		return
	}
	fields := f.all()
	fields["SYSLOG_IDENTIFIER"] = "nspawn-runner"
	sent := make(chan struct{})
	go func() { // a journal that hangs with a full queue would block it for ever
		_ = journal.Send(printable.Line(message), priority, fields)
		close(sent)
	}()
	select {
	case <-sent:
	case <-time.After(sendLimit):
	}
}
