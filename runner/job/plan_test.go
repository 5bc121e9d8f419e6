package job

import (
	"math"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"nspawn-runner/runner/config"
	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/image"
	"nspawn-runner/runner/machine"
	"nspawn-runner/runner/network"
	"nspawn-runner/runner/storage"
)

// planned is the plan of a machine with some settings, on a host with a gigabyte of memory,
// a disk of 100 GB and 1000 tasks.
func planned(t *testing.T, text, backend string) (machine.Spec, config.Config) {
	t.Helper()
	d, _ := newDriver(t, text, nil)
	made, err := storage.Named(backend)
	if err != nil {
		t.Fatal(err)
	}
	generation := image.Generation{Name: "bookworm/1", Path: "/g/bookworm/1"}
	return plan("bookworm", generation, d.Config, facts{memory: 1 << 30, disk: 100e9, tasks: 1000, backend: made}), d.Config
}

func TestAMachinesPlanFollowsSettingsAndHost(t *testing.T) {
	for _, test := range []struct {
		settings, backend string
		got               func(machine.Spec) any
		want              any
	}{
		{"", "overlay", func(s machine.Spec) any {
			return s.Image + " " + s.Generation + " " + s.Chroot + " " + s.Backend.Name()
		}, "bookworm bookworm/1 /g/bookworm/1 overlay"},
		{"memory_max: 50%", "overlay", func(s machine.Spec) any { return s.Limits.MemoryMax }, uint64(512 << 20)},
		{"memory_max: 64M", "overlay", func(s machine.Spec) any { return s.Limits.MemoryMax }, uint64(64 << 20)},
		{"machines_memory_max: 25%", "overlay", func(s machine.Spec) any { return s.Together.MemoryMax }, uint64(256 << 20)},
		{"tasks_max: 10%", "overlay", func(s machine.Spec) any { return s.Limits.TasksMax }, uint64(100)},
		{"tasks_max: infinity", "overlay", func(s machine.Spec) any { return s.Limits.TasksMax }, uint64(math.MaxUint64)},
		{"disk_max: 10%", "overlay", func(s machine.Spec) any { return s.Limits.DiskMax }, uint64(10e9)},
		{"disk_max: 10%", "tmpfs", func(s machine.Spec) any { return s.Limits.DiskMax }, uint64(1<<30) / 10},
		{"disk_max: infinity", "btrfs", func(s machine.Spec) any { return s.Limits.DiskMax }, uint64(0)},
		{"cpus: 1.5", "overlay", func(s machine.Spec) any { return s.Limits.CPUQuota }, 1.5},
		{"", "overlay", func(s machine.Spec) any { return s.NoFUSE || s.NoNesting || s.CloudMetadata || s.Quiet || s.Privileged }, false},
		{"fuse: false\nnesting: false\nusage: false", "overlay", func(s machine.Spec) any { return s.NoFUSE && s.NoNesting && s.Quiet }, true},
		{"boot_timeout: 7s", "overlay", func(s machine.Spec) any { return s.BootTimeout }, 7 * time.Second},
	} {
		spec, _ := planned(t, test.settings+"\n", test.backend)
		if got := test.got(spec); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s on %s: %v, want %v", test.settings, test.backend, got, test.want)
		}
	}
}

func TestAJobsMachineLivesAsLongAsItsTimeoutAndNoLongerThanItsImageAllows(t *testing.T) {
	for _, test := range []struct {
		timeout, limit, want time.Duration
	}{
		{0, 0, 24 * time.Hour},
		{time.Hour, 0, time.Hour + 15*time.Minute},
		{time.Hour, 30 * time.Minute, 30 * time.Minute},
		{0, time.Hour, time.Hour},
		{time.Minute, time.Hour, 16 * time.Minute},
	} {
		got := planJob(machine.Spec{}, gitlab.Job{ID: "7", Owner: "me", Timeout: test.timeout}, config.Config{JobTimeout: test.limit})
		if got.MaxRuntime != test.want || got.Job != "7" || got.Owner != "me" {
			t.Errorf("timeout %s, limit %s: %+v, want %s", test.timeout, test.limit, got, test.want)
		}
	}
}

func TestAMachineForAPlaybookFetchesPackagesAndIsTheTreeItself(t *testing.T) {
	for from, want := range map[network.Network]network.Network{network.None: network.Private, network.Private: network.Private, network.Host: network.Host} {
		spec, _ := planned(t, "disk_max: 1G\n", "overlay")
		spec.Network = from
		build := planBuild(spec, "booted")
		if build.Network != want || build.Hostname != "booted" || build.Limits.DiskMax != 0 || build.Backend.Name() == "overlay" || len(build.Masked) == 0 {
			t.Errorf("%s: %+v", from.Name(), build)
		}
	}
	spec, _ := planned(t, "", "overlay")
	if a, b := planTrial(spec), planTrial(spec); a.Job == b.Job || a.Owner != a.Job || a.MaxRuntime != trialLimit || a.Chroot != spec.Chroot {
		t.Errorf("%+v, %+v", a, b)
	}
}

func TestAServicesPlanIsThatOfItsImageInTheNetworkOfItsJob(t *testing.T) {
	spec, settings := planned(t, "service_memory_max: 10%\nservice_cpus: 2\nnetwork: none\n", "overlay")
	main := planJob(spec, gitlab.Job{ID: "4711", Owner: "o", Timeout: time.Hour}, settings)
	main.Network, main.Names = network.None, []string{"a", "b"}
	changed := serviceSettings(settings, config.Config{Network: "private"})
	if changed.MemoryMax.Bytes(1000) != 100 || changed.CPUs != 2 || changed.Network != "private" || changed.TasksMax != settings.TasksMax {
		t.Errorf("%+v", changed)
	}
	got := planService(spec, main, gitlab.Service{Name: "postgres:16\u009b"}, 2)
	if got.Job != "4711" || got.Owner != "o" || got.Role != "service2" || got.Network != network.None || got.MaxRuntime != main.MaxRuntime ||
		!slices.Equal(got.Names, main.Names) || got.Service != "postgres:16" {
		t.Errorf("%+v", got)
	}
}

func TestEachNameBelongsToOneService(t *testing.T) {
	services, said := planServices([]gitlab.Service{
		{Name: "a", Aliases: []string{"a", "x", "run-1", "localhost"}, Unfit: []string{"b\x1b[31mad"}},
		{Name: "b", Aliases: []string{"X", "b", "LOCALHOST"}},
		{Name: "c", Aliases: []string{"x"}},
	}, "run-1")
	if got := planNames(services); !slices.Equal(got, []string{"a", "x", "b"}) {
		t.Errorf("%q", got)
	}
	want := []string{
		"warning: service a: b [31mad is not a host name, so the service does not get it",
		"warning: service a: the job's machine already has the name run-1",
		"warning: service b: service a already has the name X",
		"warning: service b: service a already has the name LOCALHOST",
		"warning: service c: service a already has the name x",
		"warning: service c is not started, because no name is left for it: give it an alias of its own",
	}
	if !slices.Equal(said, want) || len(services) != 2 {
		t.Errorf("%q", said)
	}
}

func TestAServicesScriptsSeeItsVariablesAndItsCommandAndNothingOfThemIsExecuted(t *testing.T) {
	evil := "'; touch " + t.TempDir() + "/x; echo $(id)`id`\n\\"
	s := gitlab.Service{Name: evil, Aliases: []string{"a", "b"}, Command: []string{"one two", evil, ""}, Environment: map[string]string{"A": evil, "SERVICE_NAME": "mine"}}
	for _, shell := range []string{"bash", "dash"} {
		out, err := exec.Command(shell, "-c", prologue(s)+`printf '%s|' "$#" "$1" "$2" "$A" "$SERVICE_NAME" "$SERVICE_ALIASES"; eval "set -- $SERVICE_COMMAND"; printf '%s|' "$#" "$2"`).CombinedOutput()
		if want := strings.Join([]string{"3", "one two", evil, evil, evil, "a b", "3", evil, ""}, "|"); err != nil || string(out) != want {
			t.Errorf("%s: %v: %q, want %q", shell, err, out, want)
		}
	}
	if got := prologue(gitlab.Service{}); !strings.HasSuffix(got, "set -- ; ") {
		t.Errorf("%q", got)
	}
}

func TestTwoServicesAtOnePortAreNamedWithAWayOut(t *testing.T) {
	order := func(name string, command []string, variables map[string]string, ports ...uint16) orderedService {
		return orderedService{Service: gitlab.Service{Name: name, Command: command, Environment: variables}, settings: config.Config{ServicePorts: ports}}
	}
	for want, services := range map[string][]orderedService{
		"": {order("a", nil, nil, 1, 1, 2), order("b", []string{"-p", "3"}, nil, 1, 2), order("c", nil, map[string]string{"healthcheck_tcp_port": "4"}, 2), order("d", nil, nil), order("e", nil, nil)},
		"service a and service c both listen at port 2, ": {order("a", nil, nil, 1, 2), order("b", nil, nil), order("c", nil, nil, 2)},
		"service a and service b both listen at port 9, ": {order("a", []string{"x"}, map[string]string{"HEALTHCHECK_TCP_PORT": "9"}, 1), order("b", nil, nil, 9)},
	} {
		if err := checkPorts(services); (err == nil) != (want == "") || err != nil && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
	if !strings.Contains(checkPorts([]orderedService{order("a", nil, nil, 1), order("b", nil, nil, 1)}).Error(), `command: ["-p", "5433"]`) {
		t.Error("it is not said what to do")
	}
}

func TestAJobSaysHowLongAServiceMayTake(t *testing.T) {
	settings := config.Config{ServiceTimeout: 30 * time.Second}
	for value, want := range map[string]struct {
		limit time.Duration
		said  string
	}{
		"":          {30 * time.Second, ""},
		"90":        {90 * time.Second, ""},
		"2m":        {2 * time.Minute, ""},
		"x\x1b[31m": {30 * time.Second, "warning: service a: HEALTHCHECK_TIMEOUT: want a time like 90s or 5m, not x [31m; it has 30s"},
		"-1":        {30 * time.Second, "warning: service a: HEALTHCHECK_TIMEOUT: want a time like 90s or 5m, not -1; it has 30s"},
		"3h":        {time.Hour, "warning: service a: HEALTHCHECK_TIMEOUT: no service may take longer than 1h0m0s"},
	} {
		limit, said := planWait(gitlab.Service{Name: "a", Environment: map[string]string{"Healthcheck_Timeout": value}}, settings)
		if limit != want.limit || said != want.said {
			t.Errorf("%q: %v, %q", value, limit, said)
		}
	}
}

func TestThePortOfAServiceIsWhatTheJobSays(t *testing.T) {
	for value, want := range map[string]uint16{"5432": 5432, "": 0, "x": 0, "65536": 0, "-1": 0, "80 ": 0} {
		if got := servicePort(gitlab.Service{Environment: map[string]string{"Healthcheck_tcp_Port": value}}); got != want {
			t.Errorf("%q: %d", value, got)
		}
	}
}
