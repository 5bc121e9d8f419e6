package integration

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"nspawn-runner/test/gitlab"
)

// exposing is the configuration of an image whose program listens at a port.
func exposing(port string) v1.Config {
	return v1.Config{
		Entrypoint: []string{programPath}, Cmd: []string{"serve", port}, ExposedPorts: map[string]struct{}{port + "/tcp": {}},
		Env: []string{"FROM=image", "GREETING=image"}, WorkingDir: "/made/here", User: "70:71",
	}
}

func TestServicesFromARegistryRunAsTheirImagesSay(t *testing.T) {
	onEach(t, func(t *testing.T, h *host) {
		r := h.serves(t, "service_memory_max: 300M\n")
		static := r.pushLayers(t, "team/static:1", exposing("8001"), programLayer(t), layerOf(t, map[string]file{
			"run/app": {isDir: true, uid: 70, gid: 71, mode: 0o700},
		}))
		rounds := 1
		if h.backend == "overlay" {
			rounds = 2 // from the registry, and from the disk
		}
		for range rounds {
			job := h.play(t, gitlab.Job{
				Variables: serviceVariables("GREETING", "job", "SECOND", "from $GREETING"),
				Script: []string{
					"set -e", "fetch() { python3 -c 'import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())' $1; }",
					"fetch http://static-alias:8001/", "fetch 'http://other:80/fetch?url=http://static-alias:8001/file?path=/etc/hosts'",
					"fetch 'http://other/file?path=/etc/resolv.conf' | grep nameserver >/dev/null",
				},
				Services: []gitlab.Image{
					{Name: static, Alias: "static-alias"},
					{Name: static, Alias: "other", Command: []string{"serve", "80"}, Variables: serviceVariables("HEALTHCHECK_TCP_PORT", "80")},
				},
			})
			if job.Status != gitlab.Success {
				t.Fatal(job.Log)
			}
			wantLog(t, job.Log, "Starting service "+static+"...\n", "user 70 71 [71]\n", "process 1 in /made/here on run-", " with [serve 8001]\n",
				"env FROM=image\n", "env GREETING=job\n", "env SECOND=from job\n", "env HOME=/\n", "env PATH=/usr/local/sbin:", "env HOSTNAME=run-",
				"has /run/app\n", "stdout <nil>\n", "shared memory 300\n", "user namespace fork/exec "+programPath+": no space left on device\n",
				"127.0.0.1\tother\n", "::1\tstatic-alias\n", "\nservice "+static+": ")
			if strings.Contains(job.Log, ": it ") || strings.Contains(job.Log, "env container=") {
				t.Error(job.Log)
			}
		}
		if got := h.drives(t, "gc", "--dry-run").stdout; strings.Contains(got, "machine") {
			t.Error(got)
		}
	})
}

// manyUsers is a layer with users, and files in the places of those that a machine gets.
func manyUsers(t *testing.T) v1.Layer {
	return layerOf(t, map[string]file{
		"etc/passwd":               {text: "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n", mode: 0o644},
		"etc/group":                {text: "root:x:0:\nextra:x:50:app\nother:x:51:app\n", mode: 0o644},
		"etc/hosts":                {link: "/etc/passwd"},
		"etc/resolv.conf":          {link: "../../../../../../etc/shadow"},
		"etc/hostname":             {link: "/proc/1/root/etc/hostname"},
		"etc/.nspawn-runner.hosts": {link: "/etc/group"},
		"plain":                    {text: "#!/no/shell\n", mode: 0o644},
		"script":                   {text: "#!/no/shell\n", mode: 0o755},
		"text":                     {text: "no program\n", mode: 0o755},
	})
}

func TestAServiceFromARegistryRunsAsTheUserOfItsImage(t *testing.T) {
	h := onHost(t, "overlay")
	r := h.serves(t, "")
	program, users := programLayer(t), manyUsers(t)
	var services []gitlab.Image
	script := []string{"set -e"}
	var wants []string
	for i, test := range []struct{ user, jobs, want string }{
		{"", "", "user 0 0 [0]\n"}, {"app", "", "user 1000 1001 [50 51 1001]\n"}, {"1000:other", "", "user 1000 51 [51]\n"},
		{"4711", "", "user 4711 0 [0]\n"}, {"ghost", "1001:50", "user 1001 50 [50]\n"},
	} {
		config := v1.Config{Entrypoint: []string{programPath, "serve"}, User: test.user}
		port := "900" + string(rune('0'+i))
		image := r.pushLayers(t, "user"+port, config, program, users)
		service := gitlab.Image{Name: image, Command: []string{port}, Variables: serviceVariables("HEALTHCHECK_TCP_PORT", port)}
		service.Executor.Docker.User = test.jobs
		services = append(services, service)
		script = append(script, fetch("http://localhost:"+port+"/"), fetch("http://localhost:"+port+"/file?path=/etc/hosts"))
		wants = append(wants, test.want)
	}
	script = append(script, fetch("http://localhost:9001/file?path=/etc/passwd"), fetch("http://localhost:9001/file?path=/etc/group"))
	job := h.play(t, gitlab.Job{Script: script, Services: services})
	if job.Status != gitlab.Success {
		t.Fatal(job.Log)
	}
	wantLog(t, job.Log, append(wants, "env HOME=/root\n", "env HOME=/home/app\n", "127.0.1.1\trun-", "app:x:1000:1001", "extra:x:50:app\nother")...)
}

func TestAServiceFromARegistryThatCannotRunFailsItsJobAndSaysWhy(t *testing.T) {
	h := onHost(t, "overlay")
	r := h.serves(t, "services_max: 12\nservice_timeout: 300s\n")
	image := func(name string, config v1.Config) string {
		return r.pushLayers(t, name, config, programLayer(t), manyUsers(t))
	}
	plain := image("plain", v1.Config{Cmd: []string{"/plain"}})
	for _, test := range []struct {
		service gitlab.Image
		wants   []string
	}{
		{gitlab.Image{Name: plain}, []string{": it has ended with exit code 126; its last lines:\n", `nspawn-runner: "/plain": permission denied`}},
		{gitlab.Image{Name: plain, Command: []string{"nothing", "x"}}, []string{"exit code 127; ", `"nothing" is not in the PATH of the image (/usr/local/sbin:`}},
		{gitlab.Image{Name: plain, Command: []string{"/script"}}, []string{"exit code 127; ", "/script: the image lacks the interpreter"}},
		{gitlab.Image{Name: plain, Command: []string{"/text"}}, []string{"exit code 126; ", "/text: exec format error: "}},
		{gitlab.Image{Name: plain, Command: []string{programPath, "exit", "3"}}, []string{"it has ended with exit code 3; ", "the program ends with 3"}},
		{gitlab.Image{Name: plain, Command: []string{programPath, "exit", "0"}}, []string{"it has ended, with exit code 0; ", "the program ends with 0"}},
		{gitlab.Image{Name: plain, Command: []string{programPath, "exit", "7"}, Variables: serviceVariables("HEALTHCHECK_TCP_PORT", "81")}, []string{"it has ended with exit code 7; "}},
		{gitlab.Image{Name: plain, Command: []string{programPath, "kill"}}, []string{"it was killed by signal SIGSYS; ", "the program kills itself"}},
		{gitlab.Image{Name: image("ghost", v1.Config{Cmd: []string{programPath}, User: "ghost"})}, []string{"exit code 125; ", `user "ghost" is not in /etc/passwd of the image`}},
		{gitlab.Image{Name: image("empty", v1.Config{})}, []string{"its image has no command, and the job gives none"}},
		{gitlab.Image{Name: r.pushLayers(t, "broken", v1.Config{Cmd: []string{programPath}}, layerOf(t, map[string]file{"etc/hosts": {isDir: true}}))}, []string{": broken image: /etc/hosts is a directory"}},
		{gitlab.Image{Name: r.host + "/none:1"}, []string{"service image " + r.host + "/none:1: "}},
		{gitlab.Image{Name: "elsewhere.example/none:1"}, []string{"service elsewhere.example/none:1: no image of this host stands for it, and it is not pulled from a registry (oci_images)"}},
	} {
		began := time.Now()
		job := h.play(t, gitlab.Job{Script: []string{"echo goes on"}, Services: []gitlab.Image{test.service}})
		if job.Reason != gitlab.ScriptFailure || strings.Contains(job.Log, "goes on\n") || time.Since(began) > patience {
			t.Errorf("%s: %s", job.Reason, job.Log)
		}
		wantLog(t, job.Log, test.wants...)
	}
	exposed := r.pushLayers(t, "exposed", exposing("8001"), programLayer(t))
	job := h.play(t, gitlab.Job{Script: []string{"echo goes on"}, Services: []gitlab.Image{{Name: exposed}, {Name: exposed, Alias: "other"}}})
	if job.Reason != gitlab.ScriptFailure || strings.Contains(job.Log, "Starting service") {
		t.Errorf("%s: %s", job.Reason, job.Log)
	}
	wantLog(t, job.Log, "both listen at port 8001")
}

func TestAServiceFromARegistryIsLateOrEndsWhileItsJobRuns(t *testing.T) {
	h := onHost(t, "overlay")
	r := h.serves(t, "service_timeout: 2s\n")
	config := exposing("8001")
	config.ExposedPorts["8002/tcp"] = struct{}{}
	image := r.pushLayers(t, "static", config, programLayer(t))
	before := h.metrics(t)
	job := h.play(t, gitlab.Job{
		Variables: serviceVariables("CI_DEBUG_SERVICES", "true"),
		Script: []string{
			"! " + fetch("http://localhost:8001/exit?code=9") + " 2>/dev/null", "while (exec 3<>/dev/tcp/127.0.0.1/8001) 2>/dev/null; do sleep 0.1; done; sleep 0.5; false",
		},
		AfterScript: []string{"true"},
		Services:    []gitlab.Image{{Name: image}, {Name: image, Alias: "late", Command: []string{"quiet"}, Variables: serviceVariables("HEALTHCHECK_TCP_PORT", "8003")}},
	})
	if job.Reason != gitlab.ScriptFailure {
		t.Error(job.Reason)
	}
	wantLog(t, job.Log, "warning: service "+image+": it is not ready after 2s (service_timeout); its last lines:\n  nothing takes connections at port 8003 (HEALTHCHECK_TCP_PORT)",
		"The job goes on without waiting for it.", "warning: service "+image+": it has ended with exit code 9\n", "  told to end with 9\n",
		"\n[service:127.0.0.1__static-127.0.0.1-static] listening at 8001\n", "\n[service:127.0.0.1__static-127.0.0.1-static] told to end with 9\n")
	const used = `job_cpu_seconds_total{image="(registry)"}`
	if lines := strings.Count(job.Log, "\nservice "+image+": "); lines != 2 || before[used] >= h.metrics(t)[used] {
		t.Errorf("%d lines on what the one that ended and the other used, %s was %v\n%s", lines, used, before[used], job.Log)
	}
}

func TestTheProgramOfAServiceIsAskedToEndAndNotWaitedForLong(t *testing.T) {
	h := onHost(t, "overlay")
	r := h.serves(t, "")
	config := exposing("8001")
	config.StopSignal = "SIGINT"
	image := r.pushLayers(t, "static", config, programLayer(t))
	prepared := func(command ...string) *caller {
		c := h.caller(t, "bookworm")
		c.order(t, map[string]any{"name": image, "command": command})
		if status, output := c.call(t, h.driver, nil, "prepare"); status != 0 {
			t.Fatalf("exit %d: %s", status, output)
		}
		return c
	}
	said := func(c *caller) string {
		return shell(t, "journalctl --sync; journalctl --quiet --output=cat NSPAWN_RUNNER_JOB="+c.id)
	}
	c := prepared("goodbye", "8001")
	if got := h.machinesOf(t, c.id); len(got) != 2 || !strings.HasSuffix(got[1], "service1 running") {
		t.Errorf("%q", got)
	}
	if out, err := exec.Command("script", "--quiet", "--return", "--command", h.driver+" --config "+h.config+" machine login "+c.id+"-service1", "/dev/null").CombinedOutput(); err == nil || !strings.Contains(string(out), "has no init") {
		t.Errorf("%v: %s", err, out)
	}
	c.cleanup(t)
	if got := said(c); !strings.Contains(got, "asked to end by interrupt") {
		t.Error(got)
	}
	for _, command := range [][]string{{"goodbye", "8001", "never"}, {"serve", "8001"}} {
		c := prepared(command...)
		began := time.Now()
		c.cleanup(t)
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("%q: %v", command, took)
		}
	}
}

func TestAKillOfAPrepareWithAServiceFromARegistryIsMendedByWhatComesNext(t *testing.T) {
	needLab(t)
	h := onHost(t, "overlay")
	r := h.serves(t, "")
	image := r.pushLayers(t, "static", exposing("8001"), programLayer(t))
	begin := func() *caller {
		c := h.caller(t, "bookworm")
		c.order(t, map[string]any{"name": image})
		return c
	}
	c := begin()
	status, output := c.call(t, faults(), []string{tellMarks}, "prepare")
	if status != 0 {
		t.Fatalf("exit %d: %s", status, output)
	}
	c.cleanup(t)
	// Others kill at the marks that all machines have.
	marks := []string{"prepare: images of services pulled", "machine: starter waits", "machine: plan sent"}
	for _, mark := range marks {
		if !slices.Contains(marksIn(t, output), mark) {
			t.Fatalf("no %s in %s", mark, output)
		}
		c := begin()
		if status, output := c.call(t, faults(), []string{killAt(mark)}, "prepare"); status != 137 {
			t.Errorf("%s: exit %d: %s", mark, status, output)
		}
		if mark == marks[1] {
			c.die()
			h.collect(t)
		} else {
			if status, output := c.call(t, h.driver, nil, "prepare"); status != 0 {
				t.Errorf("after a kill at %s: exit %d: %s", mark, status, output)
			}
			c.cleanup(t)
		}
		if got := h.machinesOf(t, c.id); got != nil {
			t.Errorf("killed at %s, %q is left", mark, got)
		}
	}
	c = begin()
	if status, output := c.call(t, h.driver, nil, "prepare"); status != 0 {
		t.Fatalf("exit %d: %s", status, output)
	}
	if status, output := c.call(t, faults(), []string{killAt("machine: about to ask its program to end")}, "cleanup"); status != 137 {
		t.Errorf("exit %d: %s", status, output)
	}
	h.collect(t)
	if got := h.machinesOf(t, c.id); got != nil {
		t.Errorf("gc leaves %q", got)
	}
	c.cleanup(t)
}

// The helper of such a machine has marks of its own; the others kill the job's machine, too.
func TestAKillOfTheHelperOfAProgramFailsPrepareAndLeavesNothing(t *testing.T) {
	needLab(t)
	h := onHost(t, "overlay")
	r := h.serves(t, "")
	image := r.pushLayers(t, "static", exposing("8001"), programLayer(t))
	for _, mark := range []string{"supervise: stepped aside", "supervise: systemd-nspawn begins", "boot: network joined", "boot: starter bound"} {
		tellHelper(t, killAt(mark))
		c := h.caller(t, "bookworm")
		c.order(t, map[string]any{"name": image})
		if status, output := c.call(t, faults(), nil, "prepare"); status != 2 || !strings.Contains(output, "killed at: "+mark) {
			t.Errorf("%s: exit %d: %s", mark, status, output)
		}
		h.checkNothingLeft(t)
	}
}
