package job

import (
	"nspawn-runner/runner/config"
	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/machine"
	"nspawn-runner/runner/printable"
)

// orderedService is a service that is to be started.
type orderedService struct {
	gitlab.Service
	spec     machine.Spec
	settings config.Config
}

// label is what people know it by.
func (s orderedService) label() string { return "service " + printable.Line(s.Name) }

// place makes the plan of a service's machine of that of any machine of its image. What lets
// the image go stays.
func (d *Driver) place(ordered *orderedService, spec, main machine.Spec, job gitlab.Job, number int) {
	wait, said := planWait(ordered.Service, ordered.settings)
	if ordered.settings.ServiceTimeout = wait; said != "" {
		d.Note("%s", said)
	}
	release := ordered.spec.Recorded
	ordered.spec = planService(spec, main, ordered.Service, number)
	ordered.spec.Followed = job.DebugServices && ordered.settings.ServiceDebug
	ordered.spec.Recorded = release
}
