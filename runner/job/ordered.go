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
