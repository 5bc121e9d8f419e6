package job

import (
	"errors"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/config"
	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/oci"
)

func TestTheCommandOfAServiceIsMadeAsDockerMakesIt(t *testing.T) {
	image := oci.Config{Entrypoint: []string{"/entry"}, Command: []string{"serve", "--all"}}
	for name, test := range map[string]struct {
		entrypoint, command []string
		image               oci.Config
		want                []string
	}{
		"the image's":                         {nil, nil, image, []string{"/entry", "serve", "--all"}},
		"another command":                     {nil, []string{"-p", "1"}, image, []string{"/entry", "-p", "1"}},
		"another entrypoint":                  {[]string{"/other"}, nil, image, []string{"/other"}},
		"both":                                {[]string{"/other", "x"}, []string{"y"}, image, []string{"/other", "x", "y"}},
		"no entrypoint":                       {[]string{""}, []string{"sh"}, image, []string{"sh"}},
		"no entrypoint and no command":        {[]string{""}, nil, image, nil},
		"an image without entrypoint":         {nil, nil, oci.Config{Command: []string{"sh"}}, []string{"sh"}},
		"an image without anything":           {nil, nil, oci.Config{}, nil},
		"an empty list of the job's is none":  {[]string{}, []string{}, image, []string{"/entry", "serve", "--all"}},
		"an image whose program is no word":   {nil, nil, oci.Config{Entrypoint: []string{"", "x"}}, nil},
		"an entrypoint, and an image without": {[]string{"/other"}, nil, oci.Config{Command: []string{"sh"}}, []string{"/other"}},
	} {
		got := planCommand(gitlab.Service{Entrypoint: test.entrypoint, Command: test.command}, test.image)
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestAServicesEnvironmentOverridesItsImages(t *testing.T) {
	got := planEnvironment(gitlab.Service{Environment: map[string]string{"B": "job", "A": "own"}}, oci.Config{Environment: []string{"PATH=/bin", "A=image"}})
	if !slices.Equal(got, []string{"PATH=/bin", "A=image", "A=own", "B=job"}) {
		t.Errorf("%q", got)
	}
}

func TestAStopSignalIsANameOrANumber(t *testing.T) {
	for written, want := range map[string]unix.Signal{
		"": unix.SIGTERM, "SIGINT": unix.SIGINT, "int": unix.SIGINT, "3": unix.SIGQUIT, "SIGRTMIN+3": 37, "RTMAX-1": 63, "SIGRTMIN": 34,
		"SIGNONE": unix.SIGTERM, "0": unix.SIGTERM, "-2": unix.SIGTERM, "65": unix.SIGTERM, "RTMIN+99": unix.SIGTERM, "RTMIN-3": unix.SIGTERM, "RTMINx": unix.SIGTERM,
	} {
		if got := planSignal(written); got != want {
			t.Errorf("%q: %d", written, got)
		}
	}
}

func TestAnImageOfARegistryGetsNothingOfTheHost(t *testing.T) {
	hosts := config.Config{Privileged: true, FUSE: true, Nesting: true, ServiceCPUs: 2, Network: "host", Ready: "true", JobEnvironment: map[string]string{"A": "b"}}
	hosts.Devices = []string{"/dev/kvm"}
	got := programSettings(hosts, config.Config{Network: "none"})
	if got.Privileged || got.FUSE || got.Nesting || got.Binds != nil || got.Devices != nil || got.JobEnvironment != nil || got.Ready != "" || got.Network != "none" || got.CPUs != 2 {
		t.Errorf("%+v", got)
	}
}

func TestATreeThatNoMachineCanStartFromIsRefused(t *testing.T) {
	link := func(name, to string) func(string) error {
		return func(root string) error {
			return errors.Join(os.Remove(root+"/"+name), os.Mkdir(root+"/x", 0o755), os.Symlink(to, root+"/"+name))
		}
	}
	for want, make := range map[string]func(root string) error{
		"": func(root string) error {
			return errors.Join(os.Symlink("/etc/passwd", root+"/etc/hosts"), os.Symlink("var/tmp", root+"/tmp"), os.Symlink("usr/bin", root+"/bin"))
		},
		"/etc is not a directory":  link("etc", "/x"),
		"/dev is not a directory":  link("dev", "/x"),
		"/run is not a directory":  link("run", "../x"),
		"/proc is not a directory": link("proc", "proc"),
		"/sys is not a directory": func(root string) error {
			return errors.Join(os.Remove(root+"/sys"), os.WriteFile(root+"/sys", nil, 0o600))
		},
		"/etc/hosts is a directory":      func(root string) error { return os.Mkdir(root+"/etc/hosts", 0o755) },
		"/etc/machine-id is a directory": func(root string) error { return os.Mkdir(root+"/etc/machine-id", 0o755) },
	} {
		root := t.TempDir()
		for _, name := range realDirectories {
			if err := os.Mkdir(root+"/"+name, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := make(root); err != nil {
			t.Fatal(err)
		}
		if err := checkTree(root); (err == nil) != (want == "") || err != nil && err.Error() != want {
			t.Errorf("%s: %v", want, err)
		}
	}
}
