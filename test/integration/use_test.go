package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nspawn-runner/runner/machine"
	"nspawn-runner/runner/starter"
)

// hungry is a script that takes a processor, most of 300 MiB of memory, and 40 MiB of the disk.
const hungry = `exec python3 -c '
import mmap, os
memory = bytearray(200 << 20)
memory[::4096] = b"x" * len(memory[::4096])
page = mmap.mmap(-1, 1 << 20)
page.write(b"y" * (1 << 20))
file = os.open("/root/written", os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
for _ in range(40):
    os.write(file, page)
print("ready", flush=True)
while True:
    pass
'`

// kernelUse is what the kernel has counted for a machine.
type kernelUse struct{ processor, written, memory, peak float64 }

func kernelUseOf(t *testing.T, id string) (u kernelUse) {
	t.Helper()
	group := "/sys/fs/cgroup/machine.slice/machine-ci.slice/nspawn-runner-" + id + ".service"
	number := func(command string) float64 {
		n, err := strconv.ParseFloat(strings.TrimSpace(shell(t, "cd "+group+" && "+command)), 64)
		must(t, err)
		return n
	}
	u.processor = number("sed -n 's/^usage_usec //p' cpu.stat") / 1e6
	u.written = number("grep -o 'wbytes=[0-9]*' io.stat | cut -d= -f2 | sort -n | tail -1 | grep . || echo 0")
	u.memory, u.peak = number("cat memory.current"), number("cat memory.peak")
	return u
}

// listedUse is what machine list --json says that a machine uses.
type listedUse struct {
	Processor float64 `json:"cpu_seconds"`
	CPUsMax   float64 `json:"cpus_max"`
	Memory    float64 `json:"memory_bytes"`
	MemoryMax float64 `json:"memory_max_bytes"`
	Written   float64 `json:"written_bytes"`
	Disk      float64 `json:"disk_percent"`
}

// busyRow is the first row that top shows at a terminal of a machine that takes at least half
// a processor, by words, and how much it takes.
func (h *host) busyRow(t *testing.T, id string) (row []string, processors float64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	top := exec.CommandContext(ctx, "script", "--quiet", "--flush", "--command",
		"stty cols 200 rows 40; exec "+h.driver+" --config "+h.config+" top", "/dev/null")
	top.Env = append(os.Environ(), "TERM=xterm")
	keys, err := top.StdinPipe()
	must(t, err)
	screen, err := top.StdoutPipe()
	must(t, err, top.Start())
	var last string
	for lines := bufio.NewScanner(screen); lines.Scan(); { // to its end, so that top can draw until then
		words := strings.Fields(strings.TrimSuffix(lines.Text(), "\x1b[K"))
		if row != nil || len(words) < 9 || words[0] != id {
			continue
		}
		last = lines.Text()
		share, _, _ := strings.Cut(words[6], "/")
		if processors, _ = strconv.ParseFloat(share, 64); processors >= 0.5 {
			row = words
			_, err := keys.Write([]byte("q"))
			must(t, err)
		}
	}
	if err := top.Wait(); err != nil || row == nil {
		t.Fatalf("top: %v; of %s it showed %q", err, id, last)
	}
	return row, processors
}

func TestInAVMTopMachineListAndMetricsSayWhatTheKernelCounts(t *testing.T) {
	needVM(t)
	h := onHost(t, "overlay")
	h.configure(t, "memory_max: 300M\nmemory_swap_max: 0\ncpus: 1\ndisk_max: 400M\n")
	t.Cleanup(func() { h.configure(t, "") })
	before := h.metrics(t)
	id := h.prepared(t, "bookworm")
	service := id + "-service1"
	h.startBeside(t, id, "service1", func(spec *machine.Spec) {
		spec.Service, spec.NoFUSE, spec.NoNesting = "idle", true, true
		spec.Limits.MemoryMax, spec.Limits.MemorySwapMax = 100<<20, 0
		spec.Program = &machine.Program{StopSignal: unix.SIGTERM, Plan: starter.Plan{
			Command: []string{"python3", "-c", "x = b'x' * (50 << 20); __import__('time').sleep(1000)"},
		}}
	})
	run := exec.Command(h.driver, "--config", h.config, "run", "--id", id, script(t, hungry), "build_script")
	said, err := run.StdoutPipe()
	must(t, err, run.Start())
	defer func() { _ = run.Wait() }()
	if line, err := bufio.NewReader(said).ReadString('\n'); line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}

	first := kernelUseOf(t, id)
	var listed []struct {
		ID  string
		Use *listedUse
	}
	must(t, json.Unmarshal([]byte(h.drives(t, "machine", "list", "--json").stdout), &listed))
	then := kernelUseOf(t, id)
	uses := map[string]*listedUse{}
	for _, m := range listed {
		uses[m.ID] = m.Use
	}
	use, beside := uses[id], uses[service]
	if use == nil || beside == nil {
		t.Fatalf("%+v", listed)
	}
	t.Logf("machine list: %+v, %+v; the kernel: %+v, %+v", *use, *beside, first, then)
	if use.Processor < first.processor || use.Processor > then.processor || use.Written < first.written || use.Written > then.written || use.Written < 40<<20 {
		t.Errorf("%+v is not between %+v and %+v", *use, first, then)
	}
	if math.Abs(use.Memory-first.memory) > 20<<20 || use.Memory < 200<<20 || use.MemoryMax != 300<<20 || use.CPUsMax != 1 || use.Disk < 10 || use.Disk > 50 {
		t.Errorf("%+v, the kernel says %+v", *use, first)
	}
	if beside.Memory < 50<<20 || beside.MemoryMax != 100<<20 || beside.CPUsMax != 0 {
		t.Errorf("%+v", *beside)
	}
	row, busy := h.busyRow(t, id)
	t.Logf("top: %q", row)
	if busy > 1.2 || !strings.HasSuffix(row[6], "/1.0") || row[4] != "build_script" || !strings.HasSuffix(row[7], "M/300M") || !strings.HasSuffix(row[8], "%/400M") {
		t.Errorf("%q", row)
	}

	read := time.Now()
	last, besides := kernelUseOf(t, id), kernelUseOf(t, service)
	h.drives(t, "cleanup", "--id", id)
	since := time.Since(read).Seconds() // in which it took one processor, its limit
	after := h.metrics(t)
	for image, counted := range map[string]kernelUse{"bookworm": last, "(registry)": besides} {
		grown := func(name string) float64 {
			name += `{image="` + image + `"}`
			return after[name] - before[name]
		}
		if cpu := grown("job_cpu_seconds_total"); cpu < counted.processor || cpu > counted.processor+since+1 {
			t.Errorf("%s: %v s of the processor, the kernel said %v", image, cpu, counted.processor)
		}
		if written := grown("job_written_bytes_total"); written < counted.written || written > counted.written+20<<20 {
			t.Errorf("%s: %v bytes written, the kernel said %v", image, written, counted.written)
		}
		if peak := grown("job_memory_peak_bytes_sum"); peak < counted.peak || peak > 300<<20 || grown("job_memory_peak_bytes_count") != 1 {
			t.Errorf("%s: %v bytes of memory, the kernel said %v", image, peak, counted.peak)
		}
	}
	if left := shell(t, "ls "+filepath.Join(h.state, ".machines")); strings.Contains(left, id) {
		t.Error(left)
	}
}
