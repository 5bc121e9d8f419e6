package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nspawn-runner/test/gitlab"
)

// webPlaybook makes an image a service: a web server that shows what GREETING says, or what
// another web server does at the address in FETCH.
const webPlaybook = `- hosts: all
  vars:
    nspawn_runner_service: ["web:*", "*/web:*", "also:?"]
    nspawn_runner_service_timeout: 20s
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
				"set -e", fetch("http://web/"), fetch("http://registry.example.org__team__web/"), fetch("http://api:8080/"), fetch("http://[::1]:8080/") + " || true",
				"getent hosts api web", "ls /sys/class/net", "hostname",
			},
			Services: []gitlab.Image{
				{Name: "registry.example.org:5000/team/web:1.2", Alias: "web, front", Command: []string{"-c", "two words"}},
				{Name: "also:1", Alias: "api", Variables: serviceVariables("PORT", "8080", "FETCH", "http://front/")},
			},
		})
		if r.Status != gitlab.Success {
			t.Fatal(r.Log)
		}
		page := "page hello |-c 'two words'||registry.example.org__team__web registry.example.org-team-web web front|"
		wantLog(t, r.Log, "Starting service registry.example.org:5000/team/web:1.2...\n", "Starting service also:1...\n",
			"Waiting for services to be up and running (timeout 20 seconds)...\n", page, "\nservice also:1: ")
		if strings.Count(r.Log, page) < 3 || strings.Contains(r.Log, "warning") {
			t.Error(r.Log)
		}
		t.Log(r.Log)
	})
}
