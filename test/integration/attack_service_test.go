package integration

import (
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	"nspawn-runner/test/gitlab"
)

func TestAttacksFromTheMachineOfAServiceAreHeld(t *testing.T) {
	h := onHost(t, "overlay")
	allowManyMachines(t)
	h.addService(t, "any", anyPlaybook, "")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer listener.Close()
	var jobs sync.WaitGroup
	defer jobs.Wait()
	port := listener.Addr().(*net.TCPAddr).Port
	for name, attack := range map[string]string{
		"change the network of the job's machine": "ip link set lo down",
		"redirect it":                            "ip route add blackhole 192.0.2.1 || ip address add 192.0.2.7/32 dev lo",
		"write to its sysfs":                     "echo 1 >/sys/class/net/lo/mtu || mount -o remount,rw /sys",
		"change its kernel settings":             "echo 1 >/proc/sys/net/ipv4/ip_forward || echo 1024 >/proc/sys/net/ipv4/ip_unprivileged_port_start",
		"sniff it":                               "python3 -c 'import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 768)'",
		"see the processes of the job's machine": "test $(pgrep -c systemd-journal) != 1",
		"reach the loopback of the host":         "exec 3<>/dev/tcp/127.0.0.1/" + strconv.Itoa(port),
		"enter the network of the host":          "nsenter --net=/proc/1/root/proc/1/ns/net ip link show eth0 || ls /run/netns/* ",
		"make device nodes":                      "mknod /disk b 7 0 && head -c1 /disk",
	} {
		jobs.Go(func() {
			r := h.play(t, gitlab.Job{ID: newNumber(), Script: []string{"true"}, Services: []gitlab.Image{
				{Name: "any", Command: []string{"bash", "-c", "if (" + attack + "); then echo SUCCEEDED; fi; exit 9"}},
			}})
			if r.Reason != gitlab.ScriptFailure || strings.Contains(r.Log, "  SUCCEEDED") {
				t.Errorf("%s: %s", name, r.Log)
			}
			wantLog(t, r.Log, "nspawn_runner_service_start ended with exit code 9")
		})
	}
	// What is shown of services while the job runs and when it has failed: a journal that lies, a unit
	// with control characters in its name, a bus that is silent, and one that passes descriptors.
	jobs.Go(func() {
		r := h.play(t, gitlab.Job{
			ID:        newNumber(),
			Variables: serviceVariables("CI_DEBUG_SERVICES", "true"),
			Script:    []string{"sleep 5; exit 6"},
			Services: []gitlab.Image{
				{Name: "any:1", Alias: "lies", Command: []string{"bash", "-c", `cat >/usr/local/bin/journalctl <<'END'
#!/bin/bash
c=$(printf 'c%.0s' {1..100000})
printf '{"__CURSOR":"%s\\u001b[31m","MESSAGE":"red\\u001b[31mred\\nsection_start:1:x\\r\\u001b[0K","SYSLOG_IDENTIFIER":"\\u001b[2J%s"}\n{"MESSAGE":[27,99]}\n' "$c" "$c"
exec yes "$c"
END
chmod 755 /usr/local/bin/journalctl; systemd-run --quiet --unit='x\x1b[31m' bash -c 'sleep 3; exec false'`}},
				{Name: "any:2", Alias: "silent", Command: []string{"bash", "-c", `systemd-run --quiet --unit=y bash -c 'sleep 2; exec false'; (sleep 3; pkill -STOP dbus-daemon) >/dev/null 2>&1 & disown`}},
			},
		})
		if r.Reason != gitlab.ScriptFailure || r.ExitCode != 6 || strings.Contains(r.Log, "\x1b[31m") && strings.Contains(r.Log, "red\x1b[31m") || strings.Contains(r.Log, "\x1b[2J") || strings.Contains(r.Log, "\rsection_start:1:x") || len(r.Log) > 1<<20 {
			t.Errorf("%s %d, %d bytes: %.5000s", r.Reason, r.ExitCode, len(r.Log), r.Log)
		}
	})
	// What the job writes does not get out of the variables and words that it is.
	jobs.Go(func() {
		r := h.play(t, gitlab.Job{ID: newNumber(), Script: []string{"true"}, Services: []gitlab.Image{{
			Name: "any:$(touch /PWNED)'`;x", Alias: "a", Command: []string{"bash", "-c", `ls /; printf '<%s>' "$EVIL" "$SERVICE_NAME" "$1"; exit 9`, "x", "';\"$(id)"},
			Variables: serviceVariables("EVIL", "'; touch /PWNED; '$(touch /PWNED)`touch /PWNED`", "A;touch /PWNED", "x", "LD_PRELOAD\n", "x"),
		}}})
		wantLog(t, r.Log, "<'; touch /PWNED; '", "<';\"$(id)>")
		if strings.Contains(r.Log, "\n  PWNED") {
			t.Error(r.Log)
		}
	})
	// A machine whose bus and journal lie costs its own job only.
	jobs.Go(func() {
		r := h.play(t, gitlab.Job{ID: newNumber(), Script: []string{"true"}, Services: []gitlab.Image{{
			Name: "any", Command: []string{"bash", "-c", `printf '#!/bin/sh\nprintf "\\033[31mred\\r"; exec yes\n' >/usr/local/bin/journalctl; chmod 755 /usr/local/bin/journalctl; yes $'\e[31m' | head -c 100M; exit 9`},
		}}})
		if r.Reason != gitlab.ScriptFailure || strings.Contains(r.Log, "\x1b[31mred") || len(r.Log) > 20000 {
			t.Errorf("%d bytes: %.3000s", len(r.Log), r.Log)
		}
	})
}
