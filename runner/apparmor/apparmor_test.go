package apparmor

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestDenialsAreReadFromTheKernelsLog(t *testing.T) {
	for record, want := range map[string]Denial{
		`5,812,61203411,-;audit: type=1400 audit(1795663182.172:31): apparmor="DENIED" operation="open" class="file" profile="pasta" name="/tmp/a" pid=567 comm="pasta" requested_mask="r" denied_mask="r" fsuid=0 ouid=0` + "\n": {"pasta", "open /tmp/a", 61203411 * time.Microsecond},
		`5,1,7,-;audit: type=1400 audit(1.1:2): apparmor="DENIED" operation="capable" profile="passt//child" pid=1 comm=706173 capability=12  capname="net_admin"` + "\n SUBSYSTEM=x\n":                                           {"passt//child", "capable net_admin", 7 * time.Microsecond},
	} {
		if got, is := denial(record); !is || got != want {
			t.Errorf("%v %+v of %s", is, got, record)
		}
	}
	for _, record := range []string{
		"", ";", "5,1", "6,1,2,-;usb 1-1: new device\n",
		`5,812,6,-;audit: type=1400 audit(1.1:31): apparmor="ALLOWED" operation="open" profile="pasta" name="/tmp/a"`,
		`5,812,6,-;audit: type=1400 audit(1.1:31): apparmor="STATUS" operation="profile_load" profile="unconfined" name="pasta"`,
	} {
		if got, is := denial(record); is {
			t.Errorf("%+v of %q", got, record)
		}
	}
}

func TestDenialsAreReadFromTheEndOfAuditdsLog(t *testing.T) {
	log := filepath.Join(t.TempDir(), "audit.log")
	if all, err := readAuditLog(log); err != nil || len(all) != 0 {
		t.Errorf("of a host without auditd: %v, %v", all, err)
	}
	at := time.Now().Add(-time.Minute)
	line := func(verdict, profile string) string {
		return fmt.Sprintf("type=AVC msg=audit(%d.%03d:456): apparmor=%q operation=\"open\" class=\"file\" profile=%q name=\"/tmp/a\" pid=5 comm=\"pasta\" requested_mask=\"r\" denied_mask=\"r\" fsuid=0 ouid=0\x1dFSUID=\"root\" OUID=\"root\"\n", at.Unix(), at.UnixMilli()%1000, verdict, profile)
	}
	old := strings.Repeat(line("DENIED", "old"), latest/len(line("DENIED", "old"))+1)
	text := old + line("ALLOWED", "passt") + line("DENIED", "pasta") + "type=AVC msg=audit(1.1:1): apparm"
	if err := os.WriteFile(log, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := readAuditLog(log)
	if err != nil || len(all) < 2 || len(all) > strings.Count(text, "\n")-2 {
		t.Fatalf("%d denials: %v", len(all), err)
	}
	last := all[len(all)-1]
	if last.Profile != "pasta" || last.What != "open /tmp/a" {
		t.Errorf("%+v", last)
	}
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &up); err != nil {
		t.Fatal(err)
	}
	if since := time.Duration(up.Nano()) - last.Uptime; since < 50*time.Second || since > 10*time.Minute {
		t.Errorf("it happened a minute ago, and not %v", since)
	}
}

func TestOfProfilesOnlyTheirPartsCount(t *testing.T) {
	for profile, want := range map[string]bool{"pasta": true, "passt//child": true, "pasta2": false, "": false, "man": false} {
		if isAmong(profile, []string{"passt", "pasta"}) != want {
			t.Error(profile)
		}
	}
}

func TestProfilesAreListedWithTheirModes(t *testing.T) {
	const list = "pasta (enforce)\npasta2 (enforce)\nman (complain)\npasst (unconfined)\n"
	if got := among(list, []string{"passt", "pasta"}); !slices.Equal(got, []string{"pasta (enforce)", "passt (unconfined)"}) {
		t.Errorf("%q", got)
	}
}
