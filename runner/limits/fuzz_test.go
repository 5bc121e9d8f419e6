package limits

import (
	"strings"
	"testing"
)

// The name of a process that the kernel killed is the job's.
func FuzzKilledIn(f *testing.F) {
	f.Add("oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/a,task_memcg=/a,task=x,pid=1,uid=2\nKilled process 1 (x) total-vm:1kB, anon-rss:2kB")
	f.Fuzz(func(t *testing.T, log string) {
		if process, used := killedIn(strings.Split(log, "\n"), "/a"); process == "" && used > 0 {
			t.Errorf("%d bytes of nobody in %q", used, log)
		}
		if tasksRefusedIn(strings.Split(log, "\n"), "/a") && !strings.Contains(log, "pids controller in /a") {
			t.Errorf("nobody was refused a process in %q", log)
		}
	})
}
