package job

import (
	"nspawn-runner/runner/config"
	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/machine"
	"nspawn-runner/runner/printable"
)

// ordering is what the services of a job have in common.
type ordering struct {
	job gitlab.Job
	// main is the plan of the job's machine, settings are those of its image.
	main     machine.Spec
	settings config.Config
	may      Permission
}

// orderedService is a service that is to be started.
type orderedService struct {
	gitlab.Service
	spec     machine.Spec
	settings config.Config
}

// label names the service for people.
func (s orderedService) label() string { return "service " + printable.Line(s.Name) }

// place plans a service's machine, from the plan of any machine of its image. It keeps the function
// that lets the image go.
func (d *Driver) place(ordered *orderedService, spec machine.Spec, of ordering, number int) {
	wait, said := planWait(ordered.Service, ordered.settings)
	if ordered.settings.ServiceTimeout = wait; said != "" {
		d.Note("%s", said)
	}
	release := ordered.spec.Recorded
	ordered.spec = planService(spec, of.main, ordered.Service, number)
	ordered.spec.Followed = of.job.DebugServices && ordered.settings.ServiceDebug
	ordered.spec.Recorded = release
}
