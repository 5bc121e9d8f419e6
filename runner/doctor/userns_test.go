package doctor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheDoctorWarnsIfUsersInMachinesCannotMakeUserNamespaces(t *testing.T) {
	sysctls := t.TempDir()
	if err := os.Mkdir(filepath.Join(sysctls, "kernel"), 0o755); err != nil {
		t.Fatal(err)
	}
	if all := checkRefusals(sysctls); len(all) != 0 {
		t.Errorf("of a kernel without such settings: %+v", all)
	}
	set := func(allow bool) {
		for _, r := range refusals {
			value := r.refuses
			if allow {
				value = r.allows
			}
			if err := os.WriteFile(filepath.Join(sysctls, strings.ReplaceAll(r.sysctl, ".", "/")), []byte(value+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	set(true)
	if all := checkRefusals(sysctls); len(all) != 0 {
		t.Errorf("of a kernel that allows it: %+v", all)
	}
	set(false)
	all := checkRefusals(sysctls)
	if len(all) != len(refusals) || all[0].State != Warning || !strings.Contains(all[0].ToDo, "set kernel.unprivileged_userns_clone = 1 ") {
		t.Errorf("of a kernel that refuses: %+v", all)
	}
}
