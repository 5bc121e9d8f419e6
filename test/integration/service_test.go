package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// service is a gitlab-runner that is a service of the host, as it is wherever its
// package was installed, and plays one job: its drivers are in its control group.
type service struct{ unit, id, dir string }

func (h *host) serve(t *testing.T, script string) service {
	t.Helper()
	s := service{id: newID(), dir: t.TempDir()}
	s.unit = "gitlab-runner-" + s.id + ".service"
	job := filepath.Join(s.dir, "job.yaml")
	must(t, os.WriteFile(job, []byte("id: "+s.id+"\nimage: bookworm\nscript: ['"+script+"']\n"), 0o600))
	shell(t, "systemd-run --quiet --collect --unit="+s.unit+" --setenv=TMPDIR="+s.dir+
		" --property=StandardOutput=file:"+s.dir+"/log --property=StandardError=file:"+s.dir+"/errors "+
		os.Getenv("NSPAWN_RUNNER_SIMULATE")+" --driver "+h.driver+" --config "+h.config+" "+job)
	return s
}

// log is the job's, as far as it has come.
func (s service) log() string {
	log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
	return string(log)
}

// works says whether the service, or a driver of it, is still there.
func (s service) works(t *testing.T) bool {
	t.Helper()
	state := strings.TrimSpace(shell(t, "systemctl is-active "+s.unit+" || true"))
	return works(s.dir) || state != "inactive" && state != "failed"
}

func TestAGitlabRunnerWhoseServiceEndsLeavesNothingForTheNextGC(t *testing.T) {
	needLab(t)
	h := onHost(t, "overlay")
	machine := func(s service, file string) bool {
		_, err := os.Lstat(filepath.Join(h.state, ".machines", s.id, file))
		return err == nil
	}
	stages := []struct {
		name, script string
		begun        func(service) bool
	}{
		{"prepare", "true", func(s service) bool { return machine(s, "record.json") }},
		{"run", "echo ready; sleep 1000", func(s service) bool { return strings.Contains(s.log(), "\nready\n") }},
		{"cleanup", "echo ready", func(s service) bool {
			return machine(s, "stopping") || strings.Contains(s.log(), "\nready\n") && !machine(s, "")
		}},
	}
	ends := []struct{ name, command string }{
		{"stopped", "systemctl stop "},
		{"crashed", "systemctl kill --kill-whom=main --signal=KILL "}, // systemd ends the others by SIGTERM
		{"killed", "systemctl kill --kill-whom=all --signal=KILL "},
	}
	for _, end := range ends {
		for _, stage := range stages {
			t.Run(end.name+" in "+stage.name, func(t *testing.T) {
				s := h.serve(t, stage.script)
				await(t, "the stage "+stage.name, func() bool { return stage.begun(s) })
				shell(t, end.command+s.unit+" || true") // it may just have ended
				await(t, "the end of the service and its drivers", func() bool { return !s.works(t) })
				if end.name != "stopped" {
					h.drives(t, "gc")
				}
				h.checkNothingLeft(t)
			})
		}
	}
}
