package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nspawn-runner/runner/host"
	"nspawn-runner/runner/network"
	"nspawn-runner/runner/storage"
)

// What the first build wrote of a job's machine.
const oldRecord = `{
	"format": 1,
	"id": "1001",
	"image": "bookworm",
	"generation": "bookworm/20261123T000000Z",
	"chroot": "/var/lib/nspawn-runner/.generations/bookworm/20261123T000000Z",
	"backend": "overlay",
	"root_uid": 760020992,
	"created": "2026-11-23T17:00:00Z",
	"expires": "2026-11-24T17:00:00Z",
	"leader": {"pid": 21829, "started": 123456},
	"cgroup": "/machine.slice/machine-ci.slice/nspawn-runner-1001.service"
}`

func TestAMachineOfAnOlderBuildIsTheMainMachineOfItsJob(t *testing.T) {
	s := store(t)
	if err := os.Mkdir(s.dir("1001"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.dir("1001"), "record.json"), []byte(oldRecord), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := s.RecordOf("1001", Main)
	if err != nil || r.ID != "1001" || r.Job != "1001" || r.Role != Main {
		t.Errorf("%+v, %v", r, err)
	}
	if n, err := r.attached(); n != network.Host || err != nil {
		t.Errorf("it is attached to %v, %v", n, err)
	}
	if all := s.machinesOf("1001"); len(all) != 1 || all[0].ID != "1001" {
		t.Errorf("%+v", all)
	}
}

func TestAMachineThatJoinsANetworkGetsNoneOfItsOwnAndEndsWithTheOther(t *testing.T) {
	s := store(t)
	spec := Spec{Job: "7", Role: "service1", Network: network.Private, Backend: storage.InPlace(), Names: []string{"db"}, Service: "postgres:16", Joins: &host.Process{PID: 1, Started: 2}}
	s.add(t, newRecord(spec))
	r, err := s.RecordOf("7", "service1")
	if err != nil || r.Joins == nil || *r.Joins != *spec.Joins || !slices.Equal(r.Names, spec.Names) || r.Service != spec.Service {
		t.Fatalf("%+v, %v", r, err)
	}
	if n, err := r.attached(); err != nil || n.IsApart() || n.Name() != "private" {
		t.Errorf("%v, %v", n, err)
	}
	bound := func(r Record) string {
		for _, p := range s.properties(spec, r, "") {
			if p.Name == "BindsTo" {
				return fmt.Sprint(p.Value.Value())
			}
		}
		return ""
	}
	if got := bound(r); got != "[nspawn-runner-7.service]" {
		t.Errorf("bound to %q", got)
	}
	if r.Joins = nil; bound(r) != "" {
		t.Error("a machine of its own is bound to another one")
	}
	if _, err := s.RecordOf("7", Main); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the main machine: %v", err)
	}
}

func TestAJobHasSeveralMachinesEachWithAnIDOfItsOwn(t *testing.T) {
	s := store(t)
	var ids []string
	for _, spec := range []Spec{{Job: "7"}, {Job: "7", Role: "postgres"}, {Job: "8"}, {Job: "7-x"}} {
		r := Record{Format: recordFormat, ID: spec.id(), Job: spec.Job, Role: spec.Role}
		s.add(t, r)
		ids = append(ids, r.ID)
	}
	if want := []string{"7", "7-postgres", "8", "7-x"}; !slices.Equal(ids, want) {
		t.Errorf("ids %q", ids)
	}
	ids = nil
	for _, r := range s.machinesOf("7") {
		ids = append(ids, r.ID+" "+string(r.Role))
	}
	if want := []string{"7 main", "7-postgres postgres"}; !slices.Equal(ids, want) {
		t.Errorf("machines of the job: %q", ids)
	}
	if r, err := s.RecordOf("7", Main); err != nil || r.ID != "7" {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := s.RecordOf("7-postgres", Main); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("another job's machine executes scripts: %+v, %v", r, err)
	}
	s.add(t, Record{Format: recordFormat, ID: "spare", Job: "9"})
	if r, err := s.RecordOf("9", Main); err != nil || r.ID != "spare" {
		t.Errorf("a main machine of another id: %+v, %v", r, err)
	}
}

func TestAnotherJobsMachineIsNeitherReplacedNorStopped(t *testing.T) {
	s := store(t)
	alive := self(t)
	s.add(t, Record{Format: recordFormat, ID: "7-db", Job: "7", Role: "db", Leader: &alive})
	if err := s.makeWay(t.Context(), nil, Spec{Job: "7-db"}); err == nil || !strings.Contains(err.Error(), "job 7 has a machine of this id") {
		t.Errorf("start: %v", err)
	}
	may := func(Record) error { return nil }
	if err := s.Stop(t.Context(), "7-db", may); err == nil || !strings.Contains(err.Error(), "cleanup --id 7'") {
		t.Errorf("stop: %v", err)
	}
	refuse := errors.New("not yours")
	s.add(t, Record{Format: recordFormat, ID: "7", Job: "7", Leader: &alive})
	if err := s.Stop(t.Context(), "7", func(Record) error { return refuse }); !errors.Is(err, refuse) {
		t.Errorf("stop of another owner's: %v", err)
	}
	for _, id := range []string{"7", "7-db"} {
		if exists(filepath.Join(s.dir(id), stopping)) {
			t.Errorf("%s was touched", id)
		}
	}
}

func TestWhatIsBesideAnAbandonedMachineIsAbandonedToo(t *testing.T) {
	s := store(t)
	alive, dead := self(t), host.Process{PID: os.Getpid(), Started: 1}
	for _, r := range []Record{
		{ID: "7", Owner: "a", Caller: &dead, Leader: &alive},
		{ID: "7-db", Job: "7", Role: "db", Owner: "a", Leader: &alive},
		{ID: "7-web", Job: "7", Role: "web", Owner: "a", Leader: &alive},
		{ID: "7-other", Job: "7", Role: "other", Owner: "another GitLab's", Leader: &alive},
		{ID: "8", Owner: "a", Caller: &alive, Leader: &alive},
		{ID: "8-db", Job: "8", Role: "db", Owner: "a", Caller: &alive, Leader: &alive},
	} {
		r.Format, r.Boot, r.ExpiresUptime = recordFormat, host.BootID(), host.Uptime()*2
		s.add(t, r)
	}
	busy, err := s.tryLock("7-web") // somebody is at work on it
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	found, err := s.allAbandoned()
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, m := range found {
		ids = append(ids, m.id)
	}
	if want := []string{"7", "7-db"}; !slices.Equal(ids, want) || !strings.Contains(found[1].why, "its gitlab-runner") {
		t.Errorf("%+v", found)
	}
}
