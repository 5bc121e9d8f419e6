package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"nspawn-runner/runner/host"
	"nspawn-runner/runner/network"
	"nspawn-runner/runner/storage"
)

func store(t testing.TB) Store {
	t.Helper()
	dir := t.TempDir()
	s := Store{Dir: filepath.Join(dir, ".machines"), Trash: filepath.Join(dir, ".trash")}
	for _, d := range []string{s.Dir, s.Trash} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s Store) add(t testing.TB, r Record) {
	t.Helper()
	if err := os.Mkdir(s.dir(r.ID), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := r.write(s.dir(r.ID)); err != nil {
		t.Fatal(err)
	}
}

func self(t testing.TB) host.Process {
	t.Helper()
	p, err := host.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestOnlyMachinesThatNobodyWillStopAreAbandoned(t *testing.T) {
	s := store(t)
	alive, dead := self(t), host.Process{PID: os.Getpid(), Started: 1}
	later, past := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	for _, test := range []struct {
		record Record
		want   string
	}{
		{Record{ID: "by-hand", Expires: later, Boot: host.BootID(), Leader: &alive}, ""},
		{Record{ID: "of-a-runner", Expires: later, Caller: &alive, Leader: &alive}, ""},
		{Record{ID: "that-died", Expires: later, Caller: &alive, Leader: &dead}, ""},
		{Record{ID: "of-a-dead-one", Expires: later, Caller: &dead, Leader: &alive}, "gone"},
		{Record{ID: "half-started", Expires: later, Caller: &alive}, "start was killed"},
		{Record{ID: "expired", ExpiresUptime: host.Uptime() - 1, Boot: host.BootID(), Caller: &alive, Leader: &alive}, "time is over"},
		{Record{ID: "when-the-clock-made-a-step", Expires: past, ExpiresUptime: host.Uptime() + time.Hour, Boot: host.BootID(), Leader: &alive}, ""},
		{Record{ID: "stopped-on-a-read-only-disk", CreatedUptime: 1, ExpiresUptime: host.Uptime() + time.Hour, Boot: host.BootID(), Caller: &alive, Leader: &dead}, "did not come to its end"},
		{Record{ID: "of-an-older-build", Expires: past, Leader: &alive}, "time is over"},
		{Record{ID: "of-an-older-build-and-a-runner", Expires: past, Caller: &alive, Leader: &alive}, ""},
		{Record{ID: "rebooted", Expires: later, Boot: "another"}, "rebooted"},
	} {
		test.record.Format = recordFormat
		s.add(t, test.record)
		if got := s.abandoned(test.record.ID); !strings.Contains(got, test.want) || (got == "") != (test.want == "") {
			t.Errorf("%s: %q, want %q", test.record.ID, got, test.want)
		}
	}
	if err := os.WriteFile(filepath.Join(s.dir("by-hand"), stopping), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if why := s.abandoned("by-hand"); !strings.Contains(why, "cleanup was killed") {
		t.Errorf("half stopped: %q", why)
	}
	os.Mkdir(s.dir("unfinished"), 0o700)
	if s.abandoned("unfinished") == "" {
		t.Error("a machine without a record would stay for ever")
	}
	os.WriteFile(filepath.Join(s.dir("unfinished"), "record.json"), []byte(`{"format": 1, "id`), 0o600)
	if s.abandoned("unfinished") == "" {
		t.Error("a machine with half a record would stay for ever")
	}
	s.add(t, Record{ID: "later", Format: recordFormat + 1, Expires: past})
	if why := s.abandoned("later"); why != "" {
		t.Errorf("of a later build: %s", why)
	}
}

func TestCollectingNothingNeedsNoBus(t *testing.T) {
	s := store(t)
	alive := self(t)
	s.add(t, Record{ID: "1", Format: recordFormat, Expires: time.Now().Add(time.Hour), Leader: &alive})
	s.add(t, Record{ID: "2", Format: recordFormat, Expires: time.Now().Add(time.Hour)})
	starts, err := s.tryLock("2") // as who starts it does
	if err != nil {
		t.Fatal(err)
	}
	defer starts.Close()
	if err := s.Collect(t.Context()); err != nil {
		t.Error(err)
	}
	if err := (Store{Dir: "/nowhere/a", Trash: "/nowhere/b"}).Collect(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAMachineThatIsBeingMadeIsNeverAbandoned(t *testing.T) {
	s := store(t)
	made := make(chan error)
	go func() {
		for i := range 300 {
			dir, err := s.lock(context.Background(), "7", true)
			if err == nil {
				err = errors.Join(os.Remove(s.dir("7")), dir.Close())
			}
			if err != nil {
				made <- fmt.Errorf("round %d: %w", i, err)
				return
			}
		}
		made <- nil
	}()
	for {
		select {
		case err := <-made:
			if err != nil {
				t.Error(err)
			}
			return
		default:
			if found, err := s.allAbandoned(); len(found) > 0 || err != nil {
				t.Fatal(found, err)
			}
		}
	}
}

// A prepare may spend 5 ms on it.
func BenchmarkCollectingNothingBesideThirtyMachines(b *testing.B) {
	s := store(b)
	alive := self(b)
	for i := range 30 {
		s.add(b, Record{ID: strconv.Itoa(i), Format: recordFormat, Expires: time.Now().Add(time.Hour), Caller: &alive, Leader: &alive, Boot: host.BootID()})
	}
	for b.Loop() {
		if err := s.Collect(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

func TestALockIsOfWhatIsThere(t *testing.T) {
	s := store(t)
	first, err := s.lock(t.Context(), "1", true)
	if err != nil {
		t.Fatal(err)
	}
	// A process that waits for a machine which is then removed gets the lock of the next one.
	got := make(chan error, 1)
	go func() {
		second, err := s.lock(t.Context(), "1", true)
		if err == nil {
			_, err = os.Stat(filepath.Join(s.dir("1")))
			second.Close()
		}
		got <- err
	}()
	if err := os.Rename(s.dir("1"), filepath.Join(s.Trash, "1")); err != nil {
		t.Fatal(err)
	}
	first.Close()
	if err := <-got; err != nil {
		t.Error(err)
	}
	if _, err := s.lock(t.Context(), "none", false); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestMachinesThatStartAtOnceHaveRangesOfTheirOwn(t *testing.T) {
	s := store(t)
	const n = 50
	errs := make(chan error, n)
	for i := range n {
		r := Record{ID: string(rune('a'+i%26)) + string(rune('a'+i/26)), Format: recordFormat}
		if err := os.Mkdir(s.dir(r.ID), 0o700); err != nil {
			t.Fatal(err)
		}
		go func() { errs <- s.writeWithRange(t.Context(), &r) }()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	records, err := s.Records()
	if err != nil || len(records) != n {
		t.Fatalf("%d records, %v", len(records), err)
	}
	seen := map[int]bool{}
	for _, r := range records {
		if seen[r.RootUID] || r.RootUID%storage.RangeSize != 0 || r.RootUID < 0x80000 || r.RootUID+r.IDs > 0x6fff0000 {
			t.Errorf("%s: range from %d", r.ID, r.RootUID)
		}
		seen[r.RootUID] = true
	}
}

func TestServicesOfSystemdAreToldWhatAMachineIsLike(t *testing.T) {
	all := dropIns([]string{"192.0.0.3", "fe80::1%host0"}, true)
	if text := all["systemd/resolved.conf.d/nspawn-runner.conf"]; text != "[Resolve]\nDNS=192.0.0.3 fe80::1%host0\n" {
		t.Errorf("resolved: %q", text)
	}
	if _, told := all["systemd/system/systemd-binfmt.service.d/nspawn-runner.conf"]; told {
		t.Error("a privileged machine's interpreters would be the host's")
	}
	if _, told := dropIns(nil, false)["systemd/resolved.conf.d/nspawn-runner.conf"]; told {
		t.Error("resolved is told of no server")
	}
}

func TestARangeMeetsNeitherOlderMachinesNorWhatUsersOfTheHostHave(t *testing.T) {
	s := store(t)
	first, last := UserIDs()
	// All but one of the ranges is taken, the first of them by machines of an older build, which
	// had fewer ids and began anywhere.
	const free = 700
	var lines strings.Builder
	for n := first; n < last; n += storage.RangeSize {
		switch {
		case n == first+free*storage.RangeSize:
		case n%2 == 0 && n < first+20*storage.RangeSize:
			id := "old" + strconv.Itoa(n)
			s.add(t, Record{ID: id, Format: recordFormat, RootUID: n + 3*65536})
		default:
			fmt.Fprintf(&lines, "user:%d:%d\n", n+storage.RangeSize-1, 1)
		}
	}
	subuid := filepath.Join(t.TempDir(), "subuid")
	if err := os.WriteFile(subuid, []byte(lines.String()+"\nodd:x:y\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	taken, err := subordinateIDs(subuid, subuid+".none")
	if err != nil {
		t.Fatal(err)
	}
	s.add(t, Record{ID: "1", Format: recordFormat})
	r, err := readRecord(s.dir("1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.writeRange(&r, taken); err != nil || r.RootUID != first+free*storage.RangeSize {
		t.Errorf("%d, %v", r.RootUID, err)
	}
	s.add(t, Record{ID: "2", Format: recordFormat})
	if err := s.writeRange(&Record{ID: "2", Format: recordFormat}, taken); err == nil || !strings.Contains(err.Error(), "/etc/subuid") {
		t.Errorf("%v", err)
	}
}

func TestARecordOfALaterBuildIsNotRead(t *testing.T) {
	s := store(t)
	s.add(t, Record{ID: "1", Format: recordFormat + 1})
	if _, err := readRecord(s.dir("1")); err == nil || !strings.Contains(err.Error(), "newer") {
		t.Errorf("%v", err)
	}
}

func TestFilesAreReplacedInAMachineAndLinksNotFollowed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	top := t.TempDir()
	victim := filepath.Join(top, "victim")
	root := filepath.Join(top, "root")
	for _, err := range []error{
		os.WriteFile(victim, []byte("mine"), 0o600),
		os.MkdirAll(filepath.Join(root, "real"), 0o755),
		os.Symlink("/real", filepath.Join(root, "etc")), // means ROOT/real
		os.Symlink(victim, filepath.Join(root, "real", "hosts")),
		os.Symlink("../../victim", filepath.Join(root, "real", "resolv.conf")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := furnish(root, Record{ID: "1", RootUID: 70000, Network: network.Host.Name()}); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(victim); string(got) != "mine" {
		t.Errorf("a link led out of the machine: %q", got)
	}
	hosts, err := os.ReadFile(filepath.Join(root, "real", "hosts"))
	if err != nil || !strings.Contains(string(hosts), "127.0.0.1\tlocalhost") || !strings.Contains(string(hosts), "run-1") {
		t.Errorf("%q, %v", hosts, err)
	}
	for path, want := range map[string]string{
		"systemd/network/10-nspawn-runner.network":                   "Name=host0",
		"systemd/system/systemd-binfmt.service.d/nspawn-runner.conf": "binfmt_misc",
	} {
		if text, err := os.ReadFile(filepath.Join(root, "real", path)); err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: %q, %v", path, text, err)
		}
	}
	if err := os.Remove(filepath.Join(root, "etc")); err != nil {
		t.Fatal(err)
	}
	os.Symlink("/nowhere", filepath.Join(root, "etc"))
	if err := furnish(root, Record{ID: "1", RootUID: 70000, Network: network.Host.Name()}); err == nil {
		t.Error("no /etc, no error")
	}
}

func TestADirectoryIsBeingMadeForAMinute(t *testing.T) {
	now := int(host.Uptime().Seconds())
	for name, want := range map[string]bool{
		beingMade + strconv.Itoa(now) + "-x":      true,
		beingMade + strconv.Itoa(now-50) + "-x":   true,
		beingMade + strconv.Itoa(now-70) + "-x":   false,
		beingMade + strconv.Itoa(now+1000) + "-x": false, // of an earlier boot
		beingMade + strconv.Itoa(now):             false,
		beingMade + "x-x":                         false,
		"7":                                       false,
	} {
		if isBeingMade(name) != want {
			t.Errorf("%s: not %v", name, want)
		}
	}
}
