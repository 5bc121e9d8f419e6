package metrics

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"nspawn-runner/runner/fault"
	"nspawn-runner/runner/lock"
)

var images = []string{"bookworm", "sid"}

// text folds and writes what there is.
func (s Store) text(t *testing.T) string {
	t.Helper()
	numbers, broken, err := s.Fold(t.Context(), Kept, images)
	if err != nil || broken != nil {
		t.Fatal(err, broken)
	}
	var text strings.Builder
	if err := Write(&text, Families, numbers); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

func wantLines(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains("\n"+text, "\n"+Prefix+line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var update = flag.Bool("update", false, "write the golden files")

func TestTheTextIsPrometheusFormat(t *testing.T) {
	s := Store{filepath.Join(t.TempDir(), "new")}
	must(t, s.Record(Jobs.Sample(1, "sid", Success), StageDuration.Sample(0.2, "prepare"), StageDuration.Sample(0.25, "prepare"), StageDuration.Sample(99, "prepare"), MaintenanceDuration.Sample(12.5, "sid")))
	must(t, s.Record(Jobs.Sample(1, "", ScriptFailure), JobCPU.Sample(0.125, "sid")))
	numbers, _, err := s.Fold(t.Context(), Kept, []string{"sid"})
	must(t, err)
	numbers = append(numbers, Number{Family: BuildInfo.Name, Value: 1, Labels: []string{"0.1\"\\\n\xff", "252", "6.1"}})
	var text strings.Builder
	must(t, Write(&text, Families, numbers))
	const golden = "testdata/text.prom"
	if *update {
		must(t, os.WriteFile(golden, []byte(text.String()), 0o644))
	}
	want, err := os.ReadFile(golden)
	if err != nil || text.String() != string(want) {
		t.Errorf("%v: go test ./runner/metrics -update writes\n%s", err, &text)
	}
}

func TestCountersGrowAndGaugesAreTheLastOne(t *testing.T) {
	s := Store{t.TempDir()}
	for range 3 {
		must(t, s.Record(Jobs.Sample(1, "sid", Success), MaintenanceResult.Sample(0, "sid")))
		s.text(t)
		must(t, s.Record(Jobs.Sample(1, "sid", Success), MaintenanceResult.Sample(1, "sid")))
	}
	wantLines(t, s.text(t), `jobs_total{image="sid",result="success"} 6`, `maintenance_last_result{image="sid"} 1`,
		`jobs_total{image="bookworm",result="timeout"} 0`)
	wantLines(t, s.text(t), `jobs_total{image="sid",result="success"} 6`)
}

func TestALabelHasNoOtherValuesThanItsOwn(t *testing.T) {
	s := Store{t.TempDir()}
	must(t, s.Record(
		Jobs.Sample(1, "removed", Success), Jobs.Sample(1, "sid", "x\"} 1\n"), Jobs.Sample(1, "sid"), Jobs.Sample(1, "sid", Success, "x"),
		Failures.Sample(1, "job 7"), Sample{Family: "other", Value: 1}, Jobs.Sample(-1, "sid", Success), MaintenanceResult.Sample(1, "sid")))
	if text := s.text(t); strings.Contains(text, "removed") || strings.Contains(text, "x\"") || strings.Contains(text, "job 7") || strings.Contains(text, "other\n") {
		t.Error(text)
	} else {
		wantLines(t, text, `jobs_total{image="sid",result="success"} 0`, `maintenance_last_result{image="sid"} 1`)
	}
	images = []string{"bookworm"}
	defer func() { images = []string{"bookworm", "sid"} }()
	if text := s.text(t); strings.Contains(text, `"sid"`) {
		t.Errorf("an image that was removed: %s", text)
	}
}

func TestNothingIsLostBetweenManyStagesAndManyFolds(t *testing.T) {
	s := Store{t.TempDir()}
	const stages, each = 10, 200
	var all sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	for range 2 {
		all.Go(func() {
			for ctx.Err() == nil {
				if _, _, err := s.Fold(context.WithoutCancel(ctx), Kept, images); err != nil {
					t.Error(err)
				}
			}
		})
	}
	var recorders sync.WaitGroup
	for range stages {
		recorders.Go(func() {
			for range each {
				if err := s.Record(Jobs.Sample(1, "sid", Success), JobMemoryPeak.Sample(mebi, "sid")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	recorders.Wait()
	stop()
	all.Wait()
	wantLines(t, s.text(t), `jobs_total{image="sid",result="success"} 2000`, `job_memory_peak_bytes_count{image="sid"} 2000`)
	if left, _ := filepath.Glob(s.records() + "*"); left != nil {
		t.Errorf("left: %q", left)
	}
}

func TestAFoldThatIsKilledCountsNothingTwice(t *testing.T) {
	for _, mark := range []string{"metrics: records taken aside", "metrics: totals written"} {
		s := Store{t.TempDir()}
		must(t, s.Record(Jobs.Sample(1, "sid", Success)))
		fault.Hook = func(at string) {
			if at == mark {
				panic(at) // its deferred functions close files, as the kernel does
			}
		}
		func() {
			defer func() { fault.Hook = nil; _ = recover() }()
			_, _, _ = s.Fold(t.Context(), Kept, images)
			t.Errorf("%s: not killed", mark)
		}()
		must(t, s.Record(Jobs.Sample(1, "sid", Success)))
		wantLines(t, s.text(t), `jobs_total{image="sid",result="success"} 2`)
		wantLines(t, s.text(t), `jobs_total{image="sid",result="success"} 2`)
	}
}

// folding is the environment variable of a process of the next test: where it folds until it
// is killed.
const folding = "NSPAWN_RUNNER_TEST_FOLDING"

func TestNothingIsLostOrCountedTwiceWhenProcessesThatFoldAreKilled(t *testing.T) {
	if dir := os.Getenv(folding); dir != "" {
		for os.Stdout.WriteString("folding\n"); ; {
			_, _, _ = Store{dir}.Fold(t.Context(), Kept, images)
		}
	}
	s := Store{t.TempDir()}
	var folds sync.WaitGroup
	for range 5 {
		folds.Go(func() {
			for range 5 {
				fold := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
				fold.Env = append(os.Environ(), folding+"="+s.Dir)
				out, err := fold.StdoutPipe()
				if err == nil {
					err = fold.Start()
				}
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = out.Read(make([]byte, 8))
				time.Sleep(rand.N(3 * time.Millisecond))
				_ = fold.Process.Kill()
				_ = fold.Wait()
			}
		})
	}
	over := make(chan struct{})
	go func() { folds.Wait(); close(over) }()
	recorded := 0
	for killing := true; killing; recorded++ {
		select {
		case <-over:
			killing = false
		default:
		}
		must(t, s.Record(Jobs.Sample(1, "sid", Success)))
	}
	wantLines(t, s.text(t), fmt.Sprintf(`jobs_total{image="sid",result="success"} %d`, recorded))
}

func TestBrokenFilesCostOnlyWhatIsBroken(t *testing.T) {
	s := Store{t.TempDir()}
	must(t, s.Record(Jobs.Sample(1, "sid", Success)))
	file, err := os.OpenFile(s.records(), os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	// A line that a full disk cut short, a line of zeros that a power cut left, one that is endless.
	_, err = file.WriteString(`[{"n":"jobs_total","l":["sid"` + "\n" + strings.Repeat("\x00", 100) + "\n" + strings.Repeat("x", 2*mostRecord) + "\n" + `[{"n":"jo`)
	must(t, err)
	file.Close()
	must(t, s.Record(Jobs.Sample(1, "sid", Success)))
	wantLines(t, s.text(t), `jobs_total{image="sid",result="success"} 2`)

	for _, bad := range []string{"", "{", `{"format":2}`} {
		must(t, os.WriteFile(filepath.Join(s.Dir, "totals"), []byte(bad), 0o600))
		must(t, s.Record(Jobs.Sample(1, "sid", Success)))
		_, broken, err := s.Fold(t.Context(), Kept, images)
		must(t, err)
		if kept, err := os.ReadFile(filepath.Join(s.Dir, "totals.broken")); broken == nil || err != nil || string(kept) != bad {
			t.Errorf("%q: %v, %v, %q", bad, broken, err, kept)
		}
		wantLines(t, s.text(t), `jobs_total{image="sid",result="success"} 1`)
	}
}

func TestAHistogramWithOtherBucketsBeginsAnew(t *testing.T) {
	s := Store{t.TempDir()}
	old, err := json.Marshal(totals{Format: totalsFormat, Numbers: []Number{
		{Family: StageDuration.Name, Labels: []string{"run"}, Value: 7, Counts: []uint64{1, 2}},
		{Family: Jobs.Name, Labels: []string{"sid", Success}, Value: 7},
	}})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(s.Dir, "totals"), old, 0o600))
	wantLines(t, s.text(t), `stage_duration_seconds_sum{stage="run"} 0`, `stage_duration_seconds_bucket{stage="run",le="+Inf"} 0`, `jobs_total{image="sid",result="success"} 7`)
}

func TestAStageDoesNotWaitForAProcessThatHoldsTheRecords(t *testing.T) {
	s := Store{t.TempDir()}
	must(t, s.Record(Jobs.Sample(1, "sid", Success)))
	held, err := lock.File(t.Context(), s.records(), lock.Exclusive)
	must(t, err)
	began := time.Now()
	if err := s.Record(Jobs.Sample(1, "sid", Success)); err == nil {
		t.Error("recorded")
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
	held.Close()
	must(t, s.Record(Jobs.Sample(1, "sid", Success)))
}

func TestWithoutAStateDirectoryAllIsZeroAndNoneIsMade(t *testing.T) {
	top := filepath.Join(t.TempDir(), "state")
	s := Store{filepath.Join(top, "metrics")}
	if err := s.Record(Jobs.Sample(1, "sid", Success)); err == nil {
		t.Error("recorded")
	}
	wantLines(t, s.text(t), `jobs_total{image="sid",result="success"} 0`)
	if _, err := os.Stat(top); err == nil {
		t.Error("it was made")
	}
}

func TestRecordsThatNobodyFoldsAreNoticed(t *testing.T) {
	s := Store{t.TempDir()}
	if s.IsLarge() {
		t.Error("nothing is large")
	}
	must(t, os.WriteFile(s.records(), make([]byte, 2<<20), 0o600))
	if !s.IsLarge() {
		t.Error("2 MiB are not large")
	}
}

func BenchmarkRecord(b *testing.B) {
	s := Store{b.TempDir()}
	for b.Loop() {
		if err := s.Record(Jobs.Sample(1, "sid", Success), StageDuration.Sample(0.2, "cleanup"), JobCPU.Sample(1, "sid"), JobWritten.Sample(1, "sid"), JobMemoryPeak.Sample(1, "sid")); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFold(b *testing.B) {
	s := Store{b.TempDir()}
	for b.Loop() {
		for range 1000 {
			if err := s.Record(Jobs.Sample(1, "sid", Success), StageDuration.Sample(0.2, "cleanup")); err != nil {
				b.Fatal(err)
			}
		}
		if _, _, err := s.Fold(b.Context(), Kept, images); err != nil {
			b.Fatal(err)
		}
	}
}

// What stages record has the program's own words only, but an older or newer program may
// have recorded it, or a bad disk changed it.
func FuzzRecords(f *testing.F) {
	f.Add([]byte(`[{"n":"jobs_total","l":["sid","success"],"v":1}]` + "\n"))
	f.Add([]byte(`[{"n":"job_cpu_seconds_total","l":["sid"],"v":1e308},{"n":"job_cpu_seconds_total","l":["sid"],"v":1e308}]` + "\n"))
	f.Fuzz(func(t *testing.T, records []byte) {
		s := Store{t.TempDir()}
		must(t, os.WriteFile(s.records(), records, 0o600))
		numbers, _, err := s.Fold(t.Context(), Kept, images)
		must(t, err)
		for _, number := range numbers {
			if f := newSums(Kept, images).find(number.Family, number.Labels); f == nil {
				t.Errorf("%+v", number)
			}
		}
		if left, _ := filepath.Glob(s.records() + "*"); left != nil {
			t.Errorf("not folded: %q", left)
		}
	})
}

// The table of docs/metrics.md.
func TestTheDocumentationHasAllFamilies(t *testing.T) {
	const page, begin, end = "../../docs/metrics.md", "<!-- families -->\n", "<!-- end -->\n"
	text, err := os.ReadFile(page)
	must(t, err)
	before, rest, begins := strings.Cut(string(text), begin)
	was, after, ends := strings.Cut(rest, end)
	if !begins || !ends {
		t.Fatal("it has no place for the table")
	}
	table := "| name | labels | kind | meaning |\n|---|---|---|---|\n"
	for _, f := range Families {
		var labels []string
		for _, label := range f.Labels {
			labels = append(labels, "`"+label.Name+"`")
		}
		table += "| `" + f.Name + "` | " + strings.Join(labels, ", ") + " | " + string(f.Kind) + " | " + f.Help + " |\n"
	}
	if *update {
		must(t, os.WriteFile(page, []byte(before+begin+table+end+after), 0o644))
	} else if was != table {
		t.Error("go test ./runner/metrics -update writes its table")
	}
}

// The alerts and the dashboard that ship with the program.
func TestAlertsAndDashboardUseNumbersThatThereAre(t *testing.T) {
	known := map[string]bool{}
	for _, f := range Families {
		known[Prefix+f.Name] = f.Kind != Histogram
		known[Prefix+f.Name+"_bucket"] = f.Kind == Histogram
	}
	for _, path := range []string{"prometheus/nspawn-runner.rules.yml", "prometheus/nspawn-runner.test.yml", "grafana/nspawn-runner.json"} {
		text, err := os.ReadFile("../../packaging/" + path)
		must(t, err)
		if strings.HasSuffix(path, ".json") && !json.Valid(text) {
			t.Errorf("%s is no JSON", path)
		}
		names := regexp.MustCompile(`\b`+Prefix+`\w+`).FindAllString(string(text), -1)
		for _, name := range names {
			if !known[name] {
				t.Errorf("%s: there is no %s", path, name)
			}
		}
		if len(names) < 8 {
			t.Errorf("%s has %d numbers", path, len(names))
		}
	}
}
