package apparmor

import (
	"slices"
	"testing"
	"time"
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
