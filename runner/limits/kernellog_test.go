package limits

import (
	"fmt"
	"testing"
	"time"
)

func TestTheKernelsLogTellsWhatWasKilled(t *testing.T) {
	const cgroup = "/machine.slice/machine-ci.slice/nspawn-runner-7.service"
	kill := func(group, task, pid, rss string) []string {
		return []string{
			"6,1,2,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=payload,mems_allowed=0,oom_memcg=" + group +
				",task_memcg=" + group + "/payload/system.slice/job-x.service,task=" + task + ",pid=" + pid + ",uid=786432\n SUBSYSTEM=x\n",
			"3,2,2,-;Memory cgroup out of memory: Killed process " + pid + " (" + task + ") total-vm:2000kB, anon-rss:" + rss + "kB, file-rss:0kB\n",
		}
	}
	lines := append(kill(cgroup, "cc1plus", "12", "1024"), kill("/machine.slice/other.service", "bash", "13", "4096")...)
	if process, used := killedIn(lines, cgroup); process != "cc1plus" || used != 1<<20 {
		t.Errorf("%q, %d", process, used)
	}
	if process, used := killedIn(lines, "/nowhere"); process != "" || used != 0 {
		t.Errorf("of another group: %q, %d", process, used)
	}
	// A process may be called what it likes; a terminal must not suffer.
	if got := (OutOfMemory{Image: "bookworm", Peak: 5 << 20, Limit: 5 << 20, Process: "\x1b[2Jx", Used: 1 << 20}).String(); got != "out of memory: the job used 5 MiB, the limit of image bookworm is 5 MiB (memory_max); killed was [2Jx, with 1 MiB" {
		t.Errorf("%q", got)
	}
	if got := (OutOfMemory{Image: "redis", Peak: 5 << 20, Limit: 5 << 20, Service: true}).String(); got != "out of memory: the service used 5 MiB, the limit of image redis is 5 MiB (service_memory_max)" {
		t.Errorf("%q", got)
	}
	if got := (OutOfMemory{Image: "sid"}).String(); got != "out of memory: the job reached the limit of image sid (memory_max)" {
		t.Errorf("%q", got)
	}
}

func TestTheKernelsLogTellsWhoWasRefusedAProcess(t *testing.T) {
	const cgroup = "/machine.slice/machine-ci.slice/nspawn-runner-7.service"
	for group, want := range map[string]bool{
		cgroup: true,
		cgroup + "/payload/system.slice/job-x.service": true,
		cgroup + "0": false,
		"/machine.slice/machine-ci.slice/nspawn-runner-8.service/payload":     false,
		"/x cgroup: fork rejected by pids controller in /user.slice" + cgroup: false,
	} {
		lines := []string{"6,1,2,-;other\n", "6,2,3,-;cgroup: fork rejected by pids controller in " + group + "\n SUBSYSTEM=x\n"}
		if got := tasksRefusedIn(lines, cgroup); got != want {
			t.Errorf("%s: %v", group, got)
		}
	}
}

func TestTheClockOfTheKernelsLogMayBeBehind(t *testing.T) {
	const cgroup = "/machine.slice/machine-ci.slice/nspawn-runner-7.service"
	month := 30 * 24 * time.Hour
	for behind, want := range map[time.Duration]bool{0: true, 30 * time.Second: true, time.Hour: false} {
		record := fmt.Sprintf("4,2,%d,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=payload,mems_allowed=0,oom_memcg=%s,task_memcg=%[2]s/payload,task=x,pid=1,uid=1",
			(month - behind).Microseconds(), cgroup)
		if got := ranOutIn([]string{record}, cgroup, month); got != want {
			t.Errorf("%s behind: %v", behind, got)
		}
	}
}

func TestTheKernelsLogTellsOfAMachineThatIsGone(t *testing.T) {
	const cgroup = "/machine.slice/machine-ci.slice/nspawn-runner-7.service"
	record := func(microseconds, group string) []string {
		return []string{"6,1,1,-;something", "4,2," + microseconds + ",-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=payload,mems_allowed=0,oom_memcg=" +
			group + ",task_memcg=" + group + "/payload/init.scope,task=systemd,pid=556,uid=1389363200\n SUBSYSTEM=x", ""}
	}
	for _, test := range []struct {
		microseconds, group string
		want                bool
	}{
		{"5000000", cgroup, true}, {"5000001", cgroup, true}, {"4100000", cgroup, true}, {"3900000", cgroup, false}, {"x", cgroup, false},
		{"5000001", cgroup + "0", false}, {"5000001", "/machine.slice/machine-ci.slice", false},
	} {
		if got := ranOutIn(record(test.microseconds, test.group), cgroup, 5*time.Second); got != test.want {
			t.Errorf("%+v", test)
		}
		// A job may call its control groups as it likes.
		forged := "/machine.slice/machine-ci.slice/nspawn-runner-8.service/payload/x,oom_memcg=" + test.group + ",task_memcg=x"
		if ranOutIn(record(test.microseconds, forged), cgroup, 5*time.Second) {
			t.Errorf("%s passes for %s", forged, cgroup)
		}
		if process, _ := killedIn(record(test.microseconds, forged), cgroup); process != "" {
			t.Errorf("%s was killed in %s by what another job says", process, cgroup)
		}
	}
}
