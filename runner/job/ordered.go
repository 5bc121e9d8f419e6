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
	// ports are those at which its image says that it listens, if that is one of a registry.
	ports []uint16
}

// label is what people know it by.
func (s orderedService) label() string { return "service " + printable.Line(s.Name) }
