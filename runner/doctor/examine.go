package doctor

import (
	"context"

	"nspawn-runner/runner/host"
	"nspawn-runner/runner/printable"
)

// check looks at one thing. It changes nothing.
type check struct {
	name string
	look func(context.Context) []Finding
}

// checks are in the order in which a person would mend what they find: what
// the later ones need comes first.
func (d Doctor) checks(image string) []check {
	all := []check{
		{"kernel", checkKernel},
		{"systemd", checkSystemd},
		{"cgroups", checkCgroups},
		{"shared limits", checkSharedLimits},
		{"huge pages", checkHugePages},
		{"core dumps", checkCoreDumps},
		{"bus", checkBus},
		{"machined", checkMachined},
		{"nspawn", checkNspawn},
		{"network", d.checkNetwork},
		{"apparmor", checkAppArmor},
		{"guard", checkGuard},
		{"state directory", d.checkStateDir},
		{"backend", d.checkBackend},
		{"user namespaces", d.checkUserNamespaces},
		{"user ids", checkUserIDs},
		{"disk space", d.checkDisk},
		{"memory", d.checkMemory},
		{"swap", d.checkSwap},
		{"programs", d.checkPrograms},
		{"playbooks", d.checkPlaybooks},
		{"images", d.checkImages},
		{"names", d.checkNames},
		{"leftovers", d.checkLeftovers},
		{"program", checkProgram},
		{"needrestart", checkNeedrestart},
		{"textfile", checkTextfile},
		{"gitlab-runner", d.checkGitLabRunner},
		{"config.toml", func(context.Context) []Finding { return d.checkRegistration(registration) }},
	}
	if image != "" {
		all = append(all, check{"job", func(ctx context.Context) []Finding { return d.checkJob(ctx, image) }})
	}
	return all
}

// Examine says whether this host can run jobs, and what to do if not. If image is set, it
// runs a job of that image.
func (d Doctor) Examine(ctx context.Context, image string) ([]Finding, error) {
	checks := d.checks(image)
	if err := host.NeedRoot(); err != nil { // the others would only find that out
		checks = []check{{"root", func(context.Context) []Finding { return isBad("sudo nspawn-runner doctor", "%v", err) }}}
	}
	all := []Finding{}
	for _, check := range checks {
		for _, f := range check.look(ctx) {
			f.Check, f.Found, f.ToDo = check.name, printable.Line(f.Found), printable.Line(f.ToDo)
			all = append(all, f)
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	return all, nil
}
