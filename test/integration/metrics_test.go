package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"nspawn-runner/test/gitlab"
)

// metrics are the numbers of a host, by their names with labels.
func (h *host) metrics(t *testing.T) map[string]float64 {
	t.Helper()
	c := h.drive(t, "metrics")
	if c.status != 0 || c.stderr != "" {
		t.Fatalf("exit %d: %s", c.status, c.stderr)
	}
	return numbers(t, c.stdout)
}

func numbers(t *testing.T, text string) map[string]float64 {
	t.Helper()
	all := map[string]float64{}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		value, err := strconv.ParseFloat(strings.TrimSpace(line[at+1:]), 64)
		must(t, err)
		all[strings.TrimPrefix(line[:at], "nspawn_runner_")] = value
	}
	return all
}

// wantGrown compares numbers with those of before.
func wantGrown(t *testing.T, before, after map[string]float64, by map[string]float64) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(by)) {
		if got := after[name] - before[name]; got != by[name] {
			t.Errorf("%s grew by %v, want %v", name, got, by[name])
		}
	}
}

func TestMetricsCountWhatJobsDid(t *testing.T) {
	h := onHost(t, "overlay")
	before := h.metrics(t)
	var jobs sync.WaitGroup
	for range 10 {
		jobs.Go(func() {
			runner := h.runner()
			if r, err := runner.Run(t.Context(), gitlab.Job{ID: newNumber(), Image: gitlab.Image{Name: "bookworm"}, Script: []string{"true"}}); err != nil || r.Status != gitlab.Success {
				t.Errorf("%v: %+v", err, r)
			}
		})
	}
	// Meanwhile somebody reads.
	for range 5 {
		h.metrics(t)
	}
	jobs.Wait()
	ran := h.metrics(t)
	wantGrown(t, before, ran, map[string]float64{
		`jobs_total{image="bookworm",result="success"}`:        10,
		`stage_duration_seconds_count{stage="prepare"}`:        10,
		`stage_duration_seconds_count{stage="cleanup"}`:        10,
		`jobs_total{image="bookworm",result="system_failure"}`: 0,
		`machines{state="running",kind="job"}`:                 0,
	})
	if before[`job_cpu_seconds_total{image="bookworm"}`] >= ran[`job_cpu_seconds_total{image="bookworm"}`] {
		t.Error("ten jobs used no processor")
	}

	if r := h.play(t, gitlab.Job{Script: []string{"exit 3"}}); r.ExitCode != 3 {
		t.Errorf("%+v", r)
	}
	h.play(t, gitlab.Job{Image: gitlab.Image{Name: "bookworm\"} 1\nx{y=\""}, Script: []string{"true"}})
	h.play(t, gitlab.Job{Script: []string{"systemctl poweroff --force --force; sleep 60"}})
	cancelled := h.runner()
	cancelled.OnStart = func(r *gitlab.Running, p *gitlab.Process) {
		if p.SubStage == "build_script" {
			time.AfterFunc(100*time.Millisecond, r.Cancel)
		}
	}
	h.playOn(t, cancelled, gitlab.Job{Script: []string{"sleep 60"}})
	h.play(t, gitlab.Job{Script: []string{"sleep 60"}, Timeout: 6 * time.Second})
	h.play(t, gitlab.Job{Script: []string{"sleep 60"}, Variables: []gitlab.Variable{{Key: "RUNNER_SCRIPT_TIMEOUT", Value: "1s"}}})
	id, die := h.preparedByRunner(t)
	var runs sync.WaitGroup // such as the stage that a gitlab-runner leaves that is killed
	runs.Go(func() {
		if c := h.run(t, id, "touch /begun; sleep 60"); !strings.Contains(c.stderr, "is gone: its gitlab-runner (process ") {
			t.Errorf("exit %d: %s", c.status, c.stderr)
		}
	})
	if c := h.run(t, id, "until [ -e /begun ]; do sleep 0.1; done"); c.status != 0 {
		t.Errorf("exit %d: %s", c.status, c.stderr)
	}
	die()
	h.drives(t, "gc")
	runs.Wait()
	wantGrown(t, ran, h.metrics(t), map[string]float64{
		`jobs_total{image="bookworm",result="success"}`:        0,
		`jobs_total{image="bookworm",result="script_failure"}`: 1,
		`jobs_total{image="",result="script_failure"}`:         1,
		`jobs_total{image="bookworm",result="system_failure"}`: 2, // the last one's gitlab-runner died
		`failures_total{reason="abandoned"}`:                   1,
		`jobs_total{image="bookworm",result="canceled"}`:       1,
		`jobs_total{image="bookworm",result="timeout"}`:        2, // the job's time, its script's
		`failures_total{reason="no_image"}`:                    1,
		`failures_total{reason="machine_died"}`:                1,
		`failures_total{reason="other"}`:                       0,
	})

	id = h.prepared(t, "bookworm")
	now := h.metrics(t)
	if now[`machines{state="running",kind="job"}`] != 1 || now[`image_generations{image="bookworm"}`] != 1 || now[`state_free_bytes`] == 0 {
		t.Errorf("with machine %s: %v", id, now)
	}
	for _, name := range []string{"state_downloads_bytes", "state_trash_bytes"} {
		if _, there := now[name]; !there {
			t.Errorf("no %s, though there is nothing to measure", name)
		}
	}
	began := time.Now()
	h.metrics(t)
	t.Logf("metrics took %s", time.Since(began))
}

func TestJobsRunWhateverBecomesOfTheCounters(t *testing.T) {
	h := onHost(t, "overlay")
	dir := filepath.Join(h.state, ".metrics")
	runs := func(why string) {
		if r := h.play(t, gitlab.Job{Script: []string{"true"}}); r.Status != gitlab.Success || strings.Contains(r.Log, "metrics") {
			t.Errorf("%s: %s\n%s", why, r.Status, r.Log)
		}
	}
	runs("nothing is wrong")
	h.metrics(t)
	must(t, os.WriteFile(filepath.Join(dir, "totals"), []byte("{"), 0o600))
	runs("a broken file")
	if c := h.drive(t, "metrics"); c.status != 0 || !strings.Contains(c.stderr, "counters begin anew") || numbers(t, c.stdout)[`jobs_total{image="bookworm",result="success"}`] != 1 {
		t.Errorf("%+v", c)
	}
	t.Cleanup(func() { shell(t, "! mountpoint -q "+dir+" || umount "+dir); must(t, os.RemoveAll(dir)) }) // if the test ends before
	// A full disk of their own.
	shell(t, "mount -t tmpfs -o size=4k,nr_inodes=3 tmpfs "+dir)
	_, err := exec.Command("sh", "-c", "cat /dev/zero >"+dir+"/records").CombinedOutput()
	if err == nil {
		t.Error("the disk does not get full")
	}
	runs("a full disk")
	shows := func(why, warning string) {
		if c := h.drive(t, "metrics"); c.status != 0 || numbers(t, c.stdout)["state_free_bytes"] == 0 || !strings.Contains(c.stderr, warning) {
			t.Errorf("%s: %+v", why, c)
		}
	}
	shows("a full disk", "")
	shell(t, "mount -o remount,ro "+dir)
	runs("a read-only disk")
	shows("a read-only disk", "metrics without counters: ")
	shell(t, "umount "+dir)
	must(t, os.RemoveAll(dir), os.MkdirAll(filepath.Join(dir, "records"), 0o700))
	runs("a directory in place of the records")
	shows("a directory in place of the records", dir+"/records: is a directory\n")
	must(t, os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600))
	runs("a file in place of the directory")
	shows("a file in place of the directory", dir+": not a directory\n")
	must(t, os.Remove(dir))
}

func TestTheTimerWritesTheNumbersWhereNodeExporterIs(t *testing.T) {
	needLab(t)
	h := onHost(t, "overlay")
	const unit, dir = "nspawn-runner-metrics", "/var/lib/prometheus/node-exporter"
	dropIn := "/run/systemd/system/" + unit + ".service.d"
	must(t, os.MkdirAll(dropIn, 0o755), os.WriteFile(dropIn+"/test.conf",
		fmt.Appendf(nil, "[Service]\nExecStart=\nExecStart=%s --config %s metrics --textfile %s\n", h.driver, h.config, dir), 0o644))
	shell(t, "cp "+os.Getenv("NSPAWN_RUNNER_UNITS")+"/"+unit+".* /run/systemd/system/ && systemctl daemon-reload")
	t.Cleanup(func() {
		shell(t, "systemctl stop "+unit+".timer; rm -r /run/systemd/system/"+unit+".* /var/lib/prometheus; systemctl daemon-reload")
	})
	shell(t, "systemctl start "+unit+".service; ! ls "+dir+" 2>/dev/null") // no node_exporter, and no failure
	must(t, os.MkdirAll(dir, 0o755))
	shell(t, "systemctl start "+unit+".service && grep -q '^nspawn_runner_build_info' "+dir+"/nspawn-runner.prom && rm "+dir+"/nspawn-runner.prom")
	shell(t, "systemctl start "+unit+".timer")
	if out := shell(t, "systemctl list-timers --no-legend "+unit+".timer"); !strings.Contains(out, unit+".service") {
		t.Errorf("timers: %q", out)
	}
}

// debianTools unpacks those of some Debian packages that this release has, without installing services that
// run then. promtool is part of prometheus before Debian 13.
func debianTools(t *testing.T, packages ...string) (bin string) {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o755))
	shell(t, "cd "+dir+" && apt-get -qq update && apt-get -qq -o APT::Sandbox::User=root download $(apt-cache pkgnames | grep -xE '"+strings.Join(packages, "|")+"') && for p in *.deb; do dpkg-deb --extract $p .; done")
	return filepath.Join(dir, "usr/bin")
}

// serve runs a server at a free port of the loopback until the test ends.
func serve(t *testing.T, flag string, command ...string) (address string) {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	address = free.Addr().String()
	free.Close()
	cmd := exec.Command(command[0], append(command[1:], flag+address)...)
	log := filepath.Join(t.TempDir(), "log")
	file, err := os.Create(log)
	must(t, err)
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			text, _ := os.ReadFile(log)
			t.Logf("%s: %s", command[0], text)
		}
	})
	return address
}

// get returns the body of an answer, "" while there is none.
func get(address, path string) string {
	answer, err := http.Get("http://" + address + path)
	if err != nil {
		return ""
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	return string(text)
}

// The files that ship with the program, and Debian's Prometheus.
func TestPrometheusReadsTheNumbersThroughNodeExporter(t *testing.T) {
	needLab(t)
	h := onHost(t, "overlay")
	bin := debianTools(t, "prometheus", "prometheus-node-exporter", "promtool")
	shipped := filepath.Join(os.Getenv("NSPAWN_RUNNER_PACKAGING"), "prometheus")
	h.play(t, gitlab.Job{Script: []string{"true"}})
	dir := t.TempDir()
	if c := h.drive(t, "metrics", "--textfile", dir); c.status != 0 || c.stdout+c.stderr != "" {
		t.Fatalf("%+v", c)
	}
	file := filepath.Join(dir, "nspawn-runner.prom")
	shell(t, bin+"/promtool check metrics <"+file)
	shell(t, fmt.Sprintf("test $(stat -c %%a %s) = 644 && test $(ls -A %s) = nspawn-runner.prom && test -z \"$(tail -c1 %s | tr -d '\\n')\"", file, dir, file))
	shell(t, bin+"/promtool check rules "+shipped+"/nspawn-runner.rules.yml && "+bin+"/promtool test rules "+shipped+"/nspawn-runner.test.yml")
	if c := h.drive(t, "metrics", "--textfile", dir+"/none"); c.status != 1 || !strings.HasPrefix(c.stderr, "nspawn-runner: textfile directory "+dir+"/none: it does not exist: name the directory") {
		t.Errorf("%+v", c)
	}

	exporter := serve(t, "--web.listen-address=", bin+"/prometheus-node-exporter", "--collector.disable-defaults", "--collector.textfile", "--collector.textfile.directory="+dir)
	config := filepath.Join(t.TempDir(), "prometheus.yml")
	must(t, os.WriteFile(config, fmt.Appendf(nil, "global: {evaluation_interval: 1s}\nrule_files: [%s/nspawn-runner.rules.yml]\nscrape_configs:\n- job_name: node\n  scrape_interval: 1s\n  static_configs: [{targets: ['%s']}]\n", shipped, exporter), 0o644))
	prometheus := serve(t, "--web.listen-address=", bin+"/prometheus", "--config.file="+config, "--storage.tsdb.path="+t.TempDir())
	// query returns the value of the only series of an expression.
	query := func(expression string) string {
		var answer struct {
			Data struct {
				Result []struct{ Value [2]any }
			}
		}
		if json.Unmarshal([]byte(get(prometheus, "/api/v1/query?query="+url.QueryEscape(expression))), &answer) != nil || len(answer.Data.Result) != 1 {
			return ""
		}
		return fmt.Sprint(answer.Data.Result[0].Value[1])
	}
	await(t, "numbers in Prometheus", func() bool { return query(`nspawn_runner_build_info{version!="",systemd!="",kernel!=""}`) == "1" })
	want := numbers(t, read(t, file))
	for _, series := range []string{`jobs_total{image="bookworm",result="success"}`, `stage_duration_seconds_count{stage="run"}`, `machines{state="leftover",kind="service"}`, `image_generations{image="bookworm"}`} {
		if got := query("nspawn_runner_" + series); got != strconv.FormatFloat(want[series], 'g', -1, 64) {
			t.Errorf("%s is %s, want %v", series, got, want[series])
		}
	}
	if got := query("node_textfile_scrape_error"); got != "0" {
		t.Errorf("node_exporter reports an error: %s", got)
	}
	for _, expression := range dashboardExpressions(t) {
		if answer := get(prometheus, "/api/v1/query?query="+url.QueryEscape(expression)); !strings.Contains(answer, `"status":"success"`) {
			t.Errorf("of the dashboard: %s: %s", expression, answer)
		}
	}
	var rules string
	await(t, "all rules to be tried", func() bool {
		rules = get(prometheus, "/api/v1/rules")
		return rules != "" && !strings.Contains(rules, `"health":"unknown"`)
	})
	if !strings.Contains(rules, "NspawnRunnerLeftovers") || strings.Contains(rules, `"health":"err"`) {
		t.Errorf("rules: %s", rules)
	}
}

// dashboardExpressions are the queries of the panels and annotations of the dashboard that
// ships with the program, for all hosts.
func dashboardExpressions(t *testing.T) (all []string) {
	t.Helper()
	var dashboard struct {
		Panels []struct {
			Targets []struct{ Expr string }
		}
		Annotations struct {
			List []struct{ Expr string }
		}
	}
	must(t, json.Unmarshal([]byte(read(t, filepath.Join(os.Getenv("NSPAWN_RUNNER_PACKAGING"), "grafana/nspawn-runner.json"))), &dashboard))
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			all = append(all, strings.ReplaceAll(target.Expr, "$instance", ".*"))
		}
	}
	for _, annotation := range dashboard.Annotations.List {
		if annotation.Expr != "" {
			all = append(all, strings.ReplaceAll(annotation.Expr, "$instance", ".*"))
		}
	}
	if len(all) < 20 {
		t.Errorf("%d queries", len(all))
	}
	return all
}

// read is a file's content.
func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	return string(text)
}
