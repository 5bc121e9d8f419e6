package integration

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"nspawn-runner/test/gitlab"
)

// webPlaybook makes an image a service: a web server that shows what GREETING says, or what
// another web server does at the address in FETCH.
const webPlaybook = `- hosts: all
  vars:
    nspawn_runner_service: ["web:*", "*/web:*", "also:?"]
    nspawn_runner_service_timeout: 120s
    nspawn_runner_service_start: |
      echo "starting $SERVICE_NAME"
      mkdir -p /srv/www
      printf '%s|' "$GREETING" "$SERVICE_COMMAND" "$SERVICE_ENTRYPOINT" "$SERVICE_ALIASES" >/srv/www/index.html
      if [ "$FETCH" ]; then
        until python3 -c 'import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())' "$FETCH" >/srv/www/index.html 2>/dev/null; do sleep 0.1; done
      fi
      case "$DIE" in
        script) echo "no such $GREETING"; exit 3;;
        machine) systemctl --force --force poweroff; sleep 100;;
      esac
      [ "$NEVER" ] || systemd-run --quiet --unit=web python3 -m http.server --directory /srv/www "${PORT:-80}"
    nspawn_runner_ready: python3 -c 'import os, socket; socket.create_connection(("localhost", int(os.environ.get("PORT", "80"))))'
`

// addService installs an image that is a service. The host's settings change with more.
func (h *host) addService(t *testing.T, name, playbook, more string) {
	t.Helper()
	h.addImage(t, name, "")
	path := filepath.Join(h.playbooks, name+".yaml")
	must(t, os.WriteFile(path, []byte(playbook), 0o644))
	t.Cleanup(func() { os.Remove(path) })
	h.configure(t, more)
	t.Cleanup(func() { h.configure(t, "") })
}

// variables are those of a service.
func serviceVariables(pairs ...string) (all []gitlab.Variable) {
	for i := 0; i < len(pairs); i += 2 {
		all = append(all, gitlab.Variable{Key: pairs[i], Value: pairs[i+1], Public: true})
	}
	return all
}

// fetch is a command of a job that prints a page.
func fetch(url string) string {
	return `python3 -c 'import sys, urllib.request as u; print("page", u.urlopen(sys.argv[1]).read().decode().strip())' ` + url
}

func TestServicesAreReachedUnderTheirNamesAndGoWithTheirJob(t *testing.T) {
	onEach(t, func(t *testing.T, h *host) {
		h.addService(t, "web", webPlaybook, "")
		r := h.play(t, gitlab.Job{
			Variables: serviceVariables("GREETING", "hello $CI_JOB_NAME", "SECOND", "from $GREETING"),
			Script: []string{
				"set -e", fetch("http://web/"), fetch("http://registry.example.org__team__web/"), fetch("http://api:8080/"),
				"grep -c '^127.0.0.1.api$' /etc/hosts; grep -c '^::1.registry.example.org__team__web$' /etc/hosts",
			},
			Services: []gitlab.Image{
				{Name: "registry.example.org:5000/team/web:1.2", Alias: "web, front", Command: []string{"-c", "two words"}},
				{Name: "also:1", Alias: "api", Variables: serviceVariables("PORT", "8080", "FETCH", "http://front/")},
			},
		})
		if r.Status != gitlab.Success {
			t.Fatal(r.Log)
		}
		page := "page hello job|-c 'two words'||registry.example.org__team__web registry.example.org-team-web web front|"
		wantLog(t, r.Log, "Starting service registry.example.org:5000/team/web:1.2...\n", "Starting service also:1...\n",
			"Waiting for services to be up and running (timeout 120 seconds)...\n", page, "\nservice also:1: ")
		if strings.Count(r.Log, page) < 3 || strings.Contains(r.Log, "warning") {
			t.Error(r.Log)
		}
	})
}

// A service that does what a job's command says, as root of its machine.
const anyPlaybook = `- hosts: all
  vars:
    nspawn_runner_service: ["any", "any:*"]
    nspawn_runner_service_timeout: 120s
    nspawn_runner_service_start: |
      [ $# = 0 ] || "$@"
`

func TestAServiceThatNoImageIsOrThatIsNotAllowedFailsTheJobBeforeAnythingStarts(t *testing.T) {
	h := onHost(t, "overlay")
	h.addService(t, "any", anyPlaybook, "services: {'nothing:*': nothing}\nservices_max: 4\n")
	for name, more := range map[string]string{"powerful": "    nspawn_runner_privileged: true\n", "twice": "", "open": "    nspawn_runner_network: host\n"} {
		service := name + ":1"
		if name == "twice" {
			service = "any:2"
		}
		path := filepath.Join(h.playbooks, name+".yaml")
		must(t, os.WriteFile(path, []byte("- hosts: all\n  vars:\n    nspawn_runner_service: ['"+service+"']\n"+more), 0o644))
		defer os.Remove(path)
		h.addImage(t, name, "")
	}
	must(t, os.WriteFile(filepath.Join(h.playbooks, "also.yaml"), []byte("- hosts: all\n  vars:\n    nspawn_runner_service: ['any:2']\n"), 0o644))
	defer os.Remove(filepath.Join(h.playbooks, "also.yaml"))
	h.addImage(t, "also", "")
	many := make([]gitlab.Image, 100)
	for i := range many {
		many[i].Name, many[i].Alias = "any", "a"
	}
	for _, test := range []struct {
		image    string
		services []gitlab.Image
		reason   gitlab.Reason
		want     string
	}{
		{"", []gitlab.Image{{Name: "mysql:8"}}, gitlab.ScriptFailure, "service mysql:8: no image of this host stands for it, and it is not pulled from a registry (oci_images); there are: nothing:*, "},
		{"", []gitlab.Image{{Name: "bookworm"}}, gitlab.ScriptFailure, "service bookworm: no image of this host stands for it"},
		{"", []gitlab.Image{{Name: "any\x1b[31m\n../../etc"}}, gitlab.ScriptFailure, "service any [31m ../../etc: no image"},
		{"", []gitlab.Image{{Name: strings.Repeat("any", 1000)}}, gitlab.ScriptFailure, "is longer than 1024 bytes"},
		{"", many, gitlab.ScriptFailure, "the job has 100 services, and this host starts at most 4 (services_max in "},
		{"", []gitlab.Image{{Name: "powerful:1"}}, gitlab.ScriptFailure, "service powerful:1: image powerful is privileged, and this runner does not allow that"},
		{"open", []gitlab.Image{{Name: "any"}}, gitlab.ScriptFailure, "image open has no network of its own (network: host)"},
		{"", []gitlab.Image{{Name: "nothing:1"}}, gitlab.SystemFailure, "services in "},
		{"", []gitlab.Image{{Name: "any:2"}}, gitlab.SystemFailure, "stand for it (nspawn_runner_service): choose one of them with services in "},
	} {
		r := h.play(t, gitlab.Job{Image: gitlab.Image{Name: test.image}, Script: []string{"true"}, Services: test.services})
		if r.Reason != test.reason || strings.Contains(r.Log, "Starting service") {
			t.Errorf("%s: %s", r.Reason, r.Log)
		}
		wantLog(t, r.Log, test.want)
	}
	// What the administrator maps is one, whatever it is.
	h.configure(t, "services: {'any:*': also, plain: bookworm}\n")
	r := h.play(t, gitlab.Job{Script: []string{"getent hosts plain any"}, Services: []gitlab.Image{{Name: "any:2"}, {Name: "plain"}}})
	if r.Status != gitlab.Success {
		t.Error(r.Log)
	}
}

func TestAServiceThatEndsBeforeItIsReadyFailsTheJobWithItsLastLines(t *testing.T) {
	h := onHost(t, "overlay")
	h.addService(t, "web", webPlaybook, "")
	for how, wants := range map[string][]string{
		"script":  {"service web: nspawn_runner_service_start ended with exit code 3; its last lines:\n", "\n  starting web\n", "\n  no such thing\n"},
		"machine": {"service web: machine run-", " is gone: it was powered off"},
	} {
		r := h.play(t, gitlab.Job{Script: []string{"echo goes on"}, Services: []gitlab.Image{
			{Name: "also:1", Variables: serviceVariables("PORT", "81")},
			{Name: "web", Variables: serviceVariables("DIE", how, "GREETING", "thing")},
		}})
		if r.Reason != gitlab.ScriptFailure || strings.Contains(r.Log, "goes on\n") {
			t.Errorf("%s: %s: %s", how, r.Reason, r.Log)
		}
		wantLog(t, r.Log, wants...)
	}
}

func TestAServiceThatIsLateIsAWarningOrAFailureAsTheAdministratorSays(t *testing.T) {
	h := onHost(t, "overlay")
	h.addService(t, "web", strings.Replace(webPlaybook, "timeout: 120s", "timeout: 4s", 1), "")
	late := gitlab.Image{Name: "web", Variables: serviceVariables("NEVER", "1")}
	r := h.play(t, gitlab.Job{Script: []string{"echo goes on"}, Services: []gitlab.Image{late}})
	if r.Status != gitlab.Success {
		t.Error(r.Log)
	}
	wantLog(t, r.Log, "Waiting for services to be up and running (timeout 4 seconds)...",
		":waiting_for_services[collapsed=true]\r\x1b[0KStill waiting for service web\n", ":waiting_for_services\r\x1b[0K\n", "warning: service web: it is not ready after 4s (service_timeout); its last lines:",
		"Connection refused", "The job goes on without waiting for it.", "goes on\n")
	if waited := regexp.MustCompile(`\nservice web: not ready after (\d+)\.\d s\n`).FindStringSubmatch(r.Log); waited == nil || number(t, waited[1]) < 4 {
		t.Errorf("%q in: %s", waited, r.Log)
	}

	h.configure(t, "services_required: true\nservice_timeout: 2s\nservices: {plain: bookworm}\n")
	r = h.play(t, gitlab.Job{Script: []string{"echo goes on"}, Services: []gitlab.Image{late}})
	if r.Reason != gitlab.ScriptFailure || strings.Contains(r.Log, "warning") {
		t.Errorf("%s: %s", r.Reason, r.Log)
	}
	wantLog(t, r.Log, "service web: it is not ready after 4s (service_timeout)")
	r = h.play(t, gitlab.Job{Script: []string{"echo goes on"}, Services: []gitlab.Image{{Name: "plain", Variables: serviceVariables("Healthcheck_TCP_Port", "4711")}}})
	if r.Reason != gitlab.ScriptFailure {
		t.Errorf("%s: %s", r.Reason, r.Log)
	}
	wantLog(t, r.Log, "service plain: it is not ready after 2s (service_timeout)", "nothing takes connections at port 4711 (HEALTHCHECK_TCP_PORT)")
}

// once is a command of a service that starts a server, which does something when the job
// connects to a port.
func once(port, what string) []string {
	return []string{"bash", "-c", `systemd-run --quiet --unit=server python3 -u -c '
import os, socket, sys
s = socket.create_server(("127.0.0.1", ` + port + `))
s.accept()
print("the server says goodbye")
` + what + `'`}
}

func TestAServiceThatDiesIsToldToItsJobOnceAndWhatItSaidLastIfTheJobFails(t *testing.T) {
	h := onHost(t, "overlay")
	h.addService(t, "any", anyPlaybook, "")
	var services []gitlab.Image
	for i, what := range []string{"sys.exit(7)", `os.kill(os.getpid(), 9)`, `os.system("systemctl --force --force poweroff")`, "s.accept()"} {
		port := strconv.Itoa(8001 + i)
		services = append(services, gitlab.Image{Name: "any:" + port, Alias: "s" + port, Command: once(port, what)})
	}
	r := h.play(t, gitlab.Job{
		Script: []string{
			"for i in 8001 8002 8003 8004; do until (exec 3<>/dev/tcp/127.0.0.1/$i) 2>/dev/null; do sleep 0.1; done; done",
			"while (exec 3<>/dev/tcp/127.0.0.1/8002) || (exec 3<>/dev/tcp/127.0.0.1/8003); do sleep 0.1; done; sleep 1; echo the script ends; exit 5",
		},
		AfterScript: []string{"echo the after script ends"},
		Services:    services,
	})
	if r.Reason != gitlab.ScriptFailure || r.ExitCode != 5 {
		t.Errorf("%s %d", r.Reason, r.ExitCode)
	}
	for _, want := range []string{
		"warning: service any:8001: server.service failed (exit code 7)\n",
		"warning: service any:8002: server.service failed (signal 9, SIGKILL)\n",
		" is gone: it was powered off, or cleaned up\n",
	} {
		if strings.Count(r.Log, want) != 1 {
			t.Errorf("%d times %q", strings.Count(r.Log, want), want)
		}
	}
	if strings.Contains(r.Log, "failed: server.service") {
		t.Error("a header names the unit that failed, and its lines do so again")
	}
	wantLog(t, r.Log,
		"last_lines_of_service1[collapsed=true]\r\x1b[0KThe last lines of service any:8001 (server.service failed (exit code 7))\n",
		"the server says goodbye\n", ":last_lines_of_service1\r\x1b[0K\n",
		"last_lines_of_service2[collapsed=true]", "last_lines_of_service3[collapsed=true]")
	if strings.Contains(r.Log, "warning: service any:8004: server") || strings.Contains(r.Log, "last_lines_of_service4") || t.Failed() {
		t.Error(r.Log)
	}
}

func TestAServerThatDiesBeforeItIsReadyFailsTheJobAtOnce(t *testing.T) {
	h := onHost(t, "overlay")
	h.addService(t, "any", anyPlaybook, "")
	dies := []string{"systemd-run", "--quiet", "--unit=server", "bash", "-c", "echo no such port; exit 4"}
	for name, variables := range map[string][]gitlab.Variable{
		"waited for by its port": serviceVariables("HEALTHCHECK_TCP_PORT", "81"),
		"not waited for":         nil,
	} {
		command := dies
		if variables == nil {
			command = []string{"bash", "-c", `"$@"; until systemctl is-failed --quiet server; do sleep 0.1; done`, "x"}
			command = append(command, dies...)
		}
		began := time.Now()
		r := h.play(t, gitlab.Job{Script: []string{"echo goes on"}, Services: []gitlab.Image{{Name: "any", Command: command, Variables: variables}}})
		if took := time.Since(began); r.Reason != gitlab.ScriptFailure || strings.Contains(r.Log, "goes on\n") || took > 60*time.Second {
			t.Errorf("%s: %s after %v: %s", name, r.Reason, took, r.Log)
		}
		wantLog(t, r.Log, "service any: server.service failed (exit code 4); its last lines:\n", "no such port\n")
		if strings.Contains(r.Log, "failed: server.service") {
			t.Errorf("it says twice what failed: %s", r.Log)
		}
	}
}

func TestAJobSeesWhatItsServicesSayIfItWantsToAndMay(t *testing.T) {
	h := onHost(t, "overlay")
	h.addService(t, "any", anyPlaybook, "")
	speaks := gitlab.Image{Name: "any:1", Alias: "db", Command: []string{"bash", "-c", `echo sets up; systemd-run --quiet bash -c '
		for ((i = 0; ; i++)); do printf "line %d of \\e[31m%s\\n" $i "$0"; sleep 0.1; done' "the service"; sleep 1`}}
	floods := gitlab.Image{Name: "any:2", Alias: "flood", Command: []string{"systemd-run", "--quiet", "-p", "LogRateLimitIntervalSec=0", "yes", "no end"}}
	job := gitlab.Job{
		ID: newNumber(), Timeout: patience,
		Variables: serviceVariables("CI_DEBUG_SERVICES", "true"),
		Script:    []string{"echo the script begins; until [ -e /seen ]; do sleep 0.1; done; echo the script ends"},
		Services:  []gitlab.Image{speaks, floods},
	}
	job.Services[1].Alias = "flood"
	// The script ends when the log has what services say while it runs. Standard output and error
	// are two streams: some of these lines may be older than the script.
	runner := h.runner()
	var telling sync.WaitGroup
	var mu sync.Mutex
	begun, flooded, lines := false, false, 0
	runner.OnLine = func(_ *gitlab.Running, line string) {
		mu.Lock()
		defer mu.Unlock()
		begun = begun || line == "the script begins"
		flooded = flooded || strings.Contains(line, "(it has said more than ")
		if begun && lines < 15 && strings.HasSuffix(line, " of  [31mthe service") {
			lines++
		}
		if lines == 15 && flooded {
			lines++
			telling.Go(func() { h.run(t, strconv.FormatInt(job.ID, 10), "touch /seen") })
		}
	}
	r := h.playOn(t, runner, job)
	telling.Wait()
	if r.Status != gitlab.Success || len(r.Log) > 1<<20 {
		t.Errorf("%s, %d bytes", r.Status, len(r.Log))
	}
	wantLog(t, r.Log, "[service:any-db] sets up\n", "line 0 of  [31mthe service\n", "[service:flood] ", "(it has said more than 256 KiB; the rest is left out)\n")
	if strings.Count(r.Log, "]: line 0 of ") != 1 || strings.Count(r.Log, "(it has said more than ") != 1 {
		t.Error("lines come twice")
	}
	_, during, _ := strings.Cut(r.Log, "\nthe script begins")
	during, _, _ = strings.Cut(during, "\nthe script ends")
	if strings.Count(during, " of  [31mthe service\n") < 10 {
		t.Errorf("while the script runs: %s", during)
	}

	h.configure(t, "service_debug: false\n")
	job.Script = []string{"true"}
	if r := h.play(t, job); r.Status != gitlab.Success || strings.Contains(r.Log, "[service:") {
		t.Errorf("%s: %.2000s", r.Status, r.Log)
	}
}

// Half of the jobs have a network of their own with a way out, half have one without.
func TestTenJobsAtOnceHaveTwoServicesEach(t *testing.T) {
	h := onHost(t, "overlay")
	allowManyMachines(t) // 30 of them take minutes with a limit of 128
	h.addService(t, "any", anyPlaybook, "")
	cut := filepath.Join(h.playbooks, "cut.yaml")
	must(t, os.WriteFile(cut, []byte("- hosts: all\n  vars:\n    nspawn_runner_network: none\n"), 0o644))
	defer os.Remove(cut)
	h.addImage(t, "cut", "")
	serve := func(job, port string) []string {
		return []string{"bash", "-c", `mkdir /srv/www; echo "$0 $1" >/srv/www/index.html; systemd-run --quiet python3 -m http.server --directory /srv/www "$1"`, job, port}
	}
	var jobs sync.WaitGroup
	for i := range 10 {
		job := gitlab.Job{ID: newNumber(), Image: gitlab.Image{Name: []string{"bookworm", "cut"}[i%2]}}
		id := strconv.FormatInt(job.ID, 10)
		for number, port := range []string{"80", "8080"} {
			job.Services = append(job.Services, gitlab.Image{
				Name: "any:" + port, Alias: "s" + strconv.Itoa(number), Command: serve(id, port), Variables: serviceVariables("HEALTHCHECK_TCP_PORT", port),
			})
		}
		job.Script = []string{"set -e", fetch("http://any/"), fetch("http://s0/"), fetch("http://s1:8080/")}
		jobs.Go(func() {
			r := h.play(t, job)
			if r.Status != gitlab.Success || strings.Count(r.Log, "page "+id+" 80\n") != 2 || strings.Count(r.Log, "page "+id+" 8080\n") != 1 {
				t.Errorf("%s: %s", r.Status, r.Log)
			}
		})
	}
	jobs.Wait()
}

func TestANameHasOneServiceAndEveryServiceAName(t *testing.T) {
	h := onHost(t, "overlay")
	h.addService(t, "any", anyPlaybook, "")
	serve := func(port string) []gitlab.Variable { return serviceVariables("HEALTHCHECK_TCP_PORT", port) }
	listen := func(port string) []string {
		return []string{"systemd-run", "--quiet", "python3", "-m", "http.server", "--directory", "/etc", port}
	}
	r := h.play(t, gitlab.Job{
		Script: []string{"set -e", fetch("http://localhost:8001/hostname") + " || true", fetch("http://gitlab.example:8002/os-release"), "grep -vc bad /etc/hosts"},
		Services: []gitlab.Image{
			{Name: "any", Alias: "db, localhost bad\x1b[31mname 10.0.0.1", Command: listen("8001"), Variables: serve("8001")},
			{Name: "any:7", Alias: "DB, gitlab.example", Command: listen("8002"), Variables: serve("8002")},
			{Name: "any:8", Alias: "db"},
		},
	})
	if r.Status != gitlab.Success {
		t.Error(r.Log)
	}
	wantLog(t, r.Log, "warning: service any: bad [31mname is not a host name", "warning: service any: 10.0.0.1 is not a host name",
		"warning: service any:7: service any already has the name any", "warning: service any:7: service any already has the name DB",
		"warning: service any:8 is not started, because no name is left for it: give it an alias of its own", "page PRETTY_NAME")
	if strings.Contains(r.Log, "Starting service any:8") || strings.Contains(r.Log, "\x1b[31mname is") {
		t.Error(r.Log)
	}
}
