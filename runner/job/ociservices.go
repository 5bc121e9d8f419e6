package job

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"nspawn-runner/runner/config"
	"nspawn-runner/runner/failure"
	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/host"
	"nspawn-runner/runner/image"
	"nspawn-runner/runner/machine"
	"nspawn-runner/runner/network"
	"nspawn-runner/runner/oci"
	"nspawn-runner/runner/printable"
	"nspawn-runner/runner/starter"
	"nspawn-runner/runner/storage"
)

// A service that is no image of this host may be an image of a registry. Its machine executes the
// program of the image and nothing else. It has no binds and no devices of the host, and cannot hold
// containers.

// pulls says whether this host may pull an image from its registry for a job.
func (d *Driver) pulls(written string) bool {
	return d.OCI != nil && d.OCI.Rules.Allows(written) == nil
}

// pulled is an image of a registry that is held.
type pulled struct {
	oci.Image
	release func()
}

// mostPulls is how many images a job pulls at a time.
const mostPulls = 3

// pullServices pulls the images of the services that are no images of this host, and holds them. The
// result has the index of each such service. After an error, no image is held.
func (d *Driver) pullServices(ctx context.Context, job gitlab.Job, services []gitlab.Service, images map[string]string) (map[int]pulled, error) {
	byName := map[string][]int{}
	for i, service := range services {
		if images[service.Name] == "" {
			byName[service.Name] = append(byName[service.Name], i)
		}
	}
	if len(byName) == 0 {
		return nil, nil
	}
	keys := d.keychain(job)
	got := make([]pulled, len(services))
	all, pulling := errgroup.WithContext(ctx)
	all.SetLimit(mostPulls)
	for _, numbers := range byName {
		all.Go(func() error {
			for _, i := range numbers { // services with the same image: one pull is enough
				request := oci.Request{Name: services[i].Name, Credentials: keys}
				for _, policy := range services[i].PullPolicy {
					request.Policies = append(request.Policies, oci.Policy(policy))
				}
				var err error
				if got[i].Image, got[i].release, err = d.OCI.Get(pulling, request); err != nil {
					return fmt.Errorf("service %w", err) // err names the image
				}
			}
			return nil
		})
	}
	err := all.Wait()
	byNumber := map[int]pulled{}
	for i, p := range got {
		switch {
		case p.release != nil && err != nil:
			p.release()
		case p.release != nil:
			byNumber[i] = p
		}
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if oci.WouldFailAgain(err) {
			err = jobsFault(err)
		}
		return nil, failure.Because(failure.Pull, err)
	}
	fault.Here("prepare: images of services pulled")
	return byNumber, nil
}

// orderProgram plans the machine of a service whose image was pulled. The image stays held.
func (d *Driver) orderProgram(of ordering, service gitlab.Service, number int, from pulled) (ordered orderedService, err error) {
	ordered.Service = service
	ordered.spec.Recorded = from.release
	ordered.settings = programSettings(d.Config, of.settings)
	ordered.settings.ServicePorts = from.Config.Ports
	command := planCommand(service, from.Config)
	if command == nil {
		return ordered, jobsFault(fmt.Errorf("%s: its image has no command, and the job gives none", ordered.label()))
	}
	if err := checkTree(from.Path); err != nil {
		return ordered, jobsFault(fmt.Errorf("%s: broken image: %w", ordered.label(), err))
	}
	backend, err := storage.Choose(ordered.settings.Backend, d.Machines.Dir, from.Path)
	if err != nil {
		return ordered, err
	}
	facts, err := d.facts(backend)
	if err != nil {
		return ordered, err
	}
	name := printable.Line(service.Name)
	spec := plan(name, image.Generation{Name: from.Digest, Path: from.Path}, ordered.settings, facts)
	if err := d.canLimit(spec.Limits.DiskMax, backend); err != nil {
		return ordered, fmt.Errorf("%s: %w", ordered.label(), err)
	}
	d.place(&ordered, spec, of, number)
	ordered.spec.Program = &machine.Program{
		StopSignal: planSignal(from.Config.StopSignal),
		Plan: starter.Plan{
			Command:     command,
			Environment: planEnvironment(service, from.Config),
			User:        cmp.Or(service.User, from.Config.User),
			WorkingDir:  from.Config.WorkingDir,
		},
	}
	return ordered, nil
}

// realDirectories are directories of an image that must not be links. systemd-nspawn makes files and device
// nodes in them by their paths, before the machine's root is its root: a link to /opt led to the host's /opt.
var realDirectories = []string{"dev", "etc", "proc", "run", "sys", "usr"}

// checkTree returns an error if no machine can start from the tree of an image.
func checkTree(root string) error {
	for _, name := range realDirectories {
		if info, err := os.Lstat(filepath.Join(root, name)); err != nil {
			return err
		} else if !info.IsDir() {
			return fmt.Errorf("/%s is not a directory", name)
		}
	}
	for _, name := range []string{"hosts", "resolv.conf", "hostname", "machine-id"} {
		if info, err := os.Lstat(filepath.Join(root, "etc", name)); err == nil && info.IsDir() {
			return fmt.Errorf("/etc/%s is a directory", name)
		}
	}
	return nil
}

// programSettings returns the settings of a machine for an image of a registry: those of the host for
// services, without anything that needs permission.
func programSettings(hosts, main config.Config) config.Config {
	settings := serviceSettings(hosts, main)
	settings.Privileged, settings.FUSE, settings.Nesting = false, false, false
	settings.Binds, settings.Devices, settings.JobEnvironment = nil, nil, nil
	settings.ServiceStart, settings.Ready = "", ""
	return settings
}

// planCommand returns the command line of a service, or nil if there is none. It follows docker: an
// entrypoint of the job also replaces the command of the image, and an entrypoint that is one empty
// word stands for no entrypoint.
func planCommand(service gitlab.Service, config oci.Config) []string {
	entrypoint, command := config.Entrypoint, config.Command
	if len(service.Entrypoint) > 0 {
		entrypoint, command = service.Entrypoint, nil
		if len(entrypoint) == 1 && entrypoint[0] == "" {
			entrypoint = nil
		}
	}
	if len(service.Command) > 0 {
		command = service.Command
	}
	all := slices.Concat(entrypoint, command)
	if len(all) == 0 || all[0] == "" {
		return nil
	}
	return all
}

// planEnvironment returns the environment of a service: that of the image, then the variables that the
// job gives to the service.
func planEnvironment(service gitlab.Service, config oci.Config) []string {
	all := slices.Clone(config.Environment)
	for _, name := range slices.Sorted(maps.Keys(service.Environment)) {
		all = append(all, name+"="+service.Environment[name])
	}
	return all
}

// planSignal returns the signal that an image names, SIGTERM if there is no such signal.
func planSignal(written string) unix.Signal {
	if number, err := strconv.Atoi(written); err == nil && number > 0 && number <= 64 {
		return unix.Signal(number)
	}
	name := strings.ToUpper(written)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	for _, base := range []struct {
		name  string
		first int
		sign  string
	}{{"SIGRTMIN", 34, "+"}, {"SIGRTMAX", 64, "-"}} { // as glibc has it
		if rest, is := strings.CutPrefix(name, base.name); is {
			offset, err := strconv.Atoi(strings.TrimPrefix(rest, base.sign))
			switch {
			case rest == "":
				return unix.Signal(base.first)
			case err != nil || offset < 0 || offset > 30 || rest[:1] != base.sign:
				return unix.SIGTERM
			case base.sign == "-":
				offset = -offset
			}
			return unix.Signal(base.first + offset)
		}
	}
	if signal := unix.SignalNum(name); signal != 0 {
		return signal
	}
	return unix.SIGTERM
}

// settled is how long a program must run to count as ready, if it is not known at which port it listens.
const settled = time.Second

// programReady waits until the program of a service is ready: one of its ports takes connections, or,
// without a known port, it has run for a moment.
func (d *Driver) programReady(ctx context.Context, job string, main host.Process, s orderedService) (said []string, err error) {
	ports, who := s.settings.ServicePorts, "EXPOSE of its image"
	if port := servicePort(s.Service); port != 0 {
		ports, who = []uint16{port}, "HEALTHCHECK_TCP_PORT"
	}
	record, err := d.Machines.RecordOf(job, s.spec.Role)
	if err != nil {
		return nil, err
	}
	enough := time.After(settled)
	for {
		if record.State() != "running" {
			end, err := d.Machines.AwaitEnd(ctx, record)
			if err != nil {
				return nil, err
			}
			return nil, errors.New(end.String())
		}
		if slices.ContainsFunc(ports, func(port uint16) bool { return network.Answers(main, port) }) {
			return nil, nil
		}
		select {
		case <-ctx.Done():
			return []string{fmt.Sprintf("nothing takes connections at %s (%s)", listPorts(ports), who)}, context.Cause(ctx)
		case <-enough:
			if len(ports) == 0 {
				return nil, nil
			}
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// listPorts words numbers of ports.
func listPorts(ports []uint16) string {
	var words []string
	for _, port := range ports {
		words = append(words, strconv.Itoa(int(port)))
	}
	if len(words) == 1 {
		return "port " + words[0]
	}
	return "ports " + strings.Join(words, ", ")
}
