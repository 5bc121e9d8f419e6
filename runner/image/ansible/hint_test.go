package ansible

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nspawn-runner/runner/image/box"
	"nspawn-runner/runner/image/build"
)

// Words that programs really said in builds.
func TestAFailureForWantOfABootSaysWhichSettingCuresIt(t *testing.T) {
	for _, words := range []string{
		"System has not been booted with systemd as init system (PID 1). Can't operate.\nFailed to connect to bus: Host is down",
		"Failed to connect to system scope bus via local transport: No such file or directory",
		`unable to connect to database: connection to server on socket "/var/run/postgresql/.s.PGSQL.5432" failed: No such file or directory`,
		"ERROR 2002 (HY000): Can't connect to local server through socket '/run/mysqld/mysqld.sock' (2)",
		`Exception message: (2002, "Can't connect to local MySQL server through socket '/run/mysqld/mysqld.sock' (2)")`,
		"Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
		"Could not connect to Redis at 127.0.0.1:6379: Connection refused",
		"Timeout when waiting for 127.0.0.1:9200",
		"errors pretty printing info", // docker's
		"Could not determine the version of the RabbitMQ server.",
		"iptables v1.8.9 (nf_tables): Could not fetch rule set generation id: Permission denied (you must be root)",
	} {
		if got := (run{}).hint(t.Context(), words); !strings.Contains(got, "nspawn_runner_build: booted") {
			t.Errorf("%s: %q", words, got)
		}
		if got := (run{booted: true}).hint(t.Context(), words); got != "" {
			t.Errorf("booted, %s: %q", words, got)
		}
	}
	for words, booted := range map[string]bool{
		"Call to Reboot failed: Access denied": true,
		"Reboot command failed. Error was: ', System has not been booted with systemd as init system (PID 1). Can't operate.'":        false,
		"System has not been booted with systemd as init system (PID 1). Can't operate.\nFailed to talk to init daemon: Host is down": false,
	} {
		if got := (run{booted: booted}).hint(t.Context(), words); !strings.Contains(got, "is not rebooted") {
			t.Errorf("%s: %q", words, got)
		}
	}
	for booted, want := range map[bool]string{false: "if it needs a running service, nspawn_runner_build: booted", true: "no_log: false on the task"} {
		if got := (run{booted: booted}).hint(t.Context(), hidden); !strings.HasPrefix(got, want) {
			t.Errorf("hidden, booted %v: %q", booted, got)
		}
	}
	const noNode = "non-zero return code\nmknod: /srv/chroot/test-dev-null: Operation not permitted"
	if got := (run{booted: true}).hint(t.Context(), noNode); !strings.Contains(got, "nspawn_runner_build: unbooted") {
		t.Errorf("debootstrap in a machine: %q", got)
	}
	for _, words := range []string{
		noNode,
		"Could not find the requested service ssh: host",
		"non-zero return code\nfirst\nsecond",
		"non-zero return code\n/bin/sh: 1: python: not found",
		"non-zero return code\nFile \"tool.py\", line 1\nSyntaxError: invalid syntax",
		"Failed to download: connect to deb.example.org:80: Connection refused",
	} {
		if got := (run{}).hint(t.Context(), words); got != "" {
			t.Errorf("%s: %q", words, got)
		}
	}
}

func TestAnImageTooOldForTheHostsAnsibleSaysBothVersions(t *testing.T) {
	bin, root := t.TempDir(), t.TempDir()
	const fake = "#!/bin/sh\necho 'ansible-playbook [core 2.17.1]'\necho '  config file = None'\n"
	if err := os.WriteFile(filepath.Join(bin, "ansible-playbook"), []byte(fake), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin)
	if err := os.MkdirAll(filepath.Join(root, "usr/bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("python3.6", filepath.Join(root, "usr/bin/python3")); err != nil {
		t.Fatal(err)
	}
	r := run{Build: &build.Build{Tree: box.Tree{Root: root}}}
	for words, want := range map[string]string{
		"SyntaxError: future feature annotations is not defined":                                                "ansible-core 2.17.1, the image Python 3.6, which is too old",
		"ansible-core requires a minimum of Python2 version 2.7 or Python3 version 3.5. Current version: 3.4.2": "ansible_python_interpreter",
		"ModuleNotFoundError: No module named 'ansible.module_utils.six.moves'":                                 "ansible-core 2.17.1, which is too old for the image's Python 3.6",
		"/bin/sh: 1: /usr/bin/python3: not found":                                                               "apt-get -y install python3",
		"Unsupported parameters for (ansible.legacy.command) module: warn. Supported parameters include: argv":  "ansible-core 2.17.1, and 2.14 took this parameter away",
		"couldn't resolve module/action 'deb822_repository'.":                                                   "this host has ansible-core 2.17.1: a newer one may know it",
	} {
		if got := r.hint(t.Context(), words); !strings.Contains(got, want) {
			t.Errorf("%s: %q", words, got)
		}
	}
}

func TestSynchronizeWithoutRsyncSaysWhereItIsMissing(t *testing.T) {
	for _, words := range []string{
		"/bin/sh: 1: rsync: not found", // in the image
		`Failed to find required executable "rsync" in paths: /usr/local/sbin:/usr/sbin`,
	} {
		if got := (run{}).hint(t.Context(), words); !strings.Contains(got, "rsync on this host and in the image") {
			t.Errorf("%s: %q", words, got)
		}
	}
}
