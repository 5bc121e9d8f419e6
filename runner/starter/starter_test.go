package starter

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	passwd = "root:x:0:0:root:/root:/bin/sh\n# a comment\nbroken:x:one:two\n\npostgres:x:70:71::/var/lib/postgresql:/bin/sh\n" +
		"1000:x:5:5::/five:\napp:x:1000:1001::/home/app\napp:x:9:9::/second\nnohome:x:3:3\n-1:x:-1:-1::/:\nhuge:x:4294967296:0::/"
	group = "root:x:0:\npg:x:71:\nssl:x:101:postgres,app\nwheel:x:10:root, app\nssl-twice:x:101:postgres\nnumbers:x:x:app\nbare:x:50\n"
)

func TestAUserIsWhoDockerSaysItIs(t *testing.T) {
	for wanted, want := range map[string]identity{
		"":              {0, 0, []int{0, 10}, "/root"},
		"root":          {0, 0, []int{0, 10}, "/root"},
		"0":             {0, 0, []int{0, 10}, "/root"},
		"postgres":      {70, 71, []int{71, 101}, "/var/lib/postgresql"},
		"postgres:":     {70, 71, []int{71, 101}, "/var/lib/postgresql"},
		"70":            {70, 71, []int{71, 101}, "/var/lib/postgresql"},
		"postgres:bare": {70, 50, []int{50}, "/var/lib/postgresql"},
		"70:5":          {70, 5, []int{5}, "/var/lib/postgresql"},
		"1000":          {1000, 1001, []int{1001, 101}, "/home/app"},
		"app":           {1000, 1001, []int{1001, 101}, "/home/app"},
		"4711":          {4711, 0, []int{0}, "/"},
		"4711:4712":     {4711, 4712, []int{4712}, "/"},
		"nohome":        {3, 3, []int{3}, "/"},
		":ssl":          {0, 101, []int{101}, "/root"},
	} {
		got, err := identify(wanted, passwd, group)
		if err != nil || got.uid != want.uid || got.gid != want.gid || got.home != want.home || !slices.Equal(got.groups, want.groups) {
			t.Errorf("%q: %+v, %v", wanted, got, err)
		}
	}
	for _, wanted := range []string{"nobody", "broken", "-1", "postgres:none", "4711:none", "numbers", ":numbers", "0x0", "postgres:-1", "4294967296", "2147483648", "0:4294967296", "huge"} {
		if got, err := identify(wanted, passwd, group); err == nil {
			t.Errorf("%q: %+v", wanted, got)
		}
	}
	for wanted, want := range map[string]identity{"": {0, 0, []int{0}, "/"}, "5": {5, 0, []int{0}, "/"}} {
		if got, err := identify(wanted, "", ""); err != nil || got.uid != want.uid || got.gid != want.gid || got.home != "/" {
			t.Errorf("%q without files: %+v, %v", wanted, got, err)
		}
	}
}

func FuzzIdentify(f *testing.F) {
	f.Add("postgres:ssl", passwd, group)
	f.Add("70", "a:b:c", ":::")
	f.Fuzz(func(t *testing.T, wanted, passwd, group string) {
		who, err := identify(wanted, passwd, group)
		if err != nil {
			return
		}
		if !isID(who.uid) || !isID(who.gid) || len(who.groups) == 0 || who.groups[0] != who.gid || len(who.groups) > maxGroups {
			t.Errorf("%q: %+v", wanted, who)
		}
		if name, _, _ := strings.Cut(wanted, ":"); name != "" && name[0] != '0' && name[0] != '-' && name[0] != '+' && who.uid == 0 && !strings.Contains(passwd, name+":") {
			t.Errorf("%q is root", wanted)
		}
	})
}

func TestAFileThatIsNoneIsAnEmptyDatabase(t *testing.T) {
	dir := t.TempDir()
	long := filepath.Join(dir, "long")
	if err := os.WriteFile(long, []byte(strings.Repeat("x", 3<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{"/dev/zero": 0, dir: 0, filepath.Join(dir, "none"): 0, long: maxDatabase} {
		if got := readSmall(path); len(got) != want {
			t.Errorf("%s: %d bytes", path, len(got))
		}
	}
}

func TestAProgramIsLookedUpInThePathOfTheImage(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"a/tool": 0o755, "b/tool": 0o755, "b/plain": 0o644, "c/plain": 0o755} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, mode)); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(filepath.Join(dir, "a"))
	path := dir + "/none:" + dir + "/b:" + dir + "/c:"
	for name, want := range map[string]string{"tool": dir + "/b/tool", dir + "/a/tool": dir + "/a/tool", "./tool": "./tool", "plain": dir + "/c/plain"} {
		if got, err := lookUp(name, path); err != nil || got != want {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	if got, err := lookUp("tool", ":"); err != nil || got != "./tool" {
		t.Errorf("%s, %v", got, err)
	}
	for name, want := range map[string]int{"nothing": notFound, "/nothing": notFound, dir + "/b/plain": notExecutable, dir: notExecutable, dir + "/a/tool/x": notFound} {
		_, err := lookUp(name, path)
		var failed failure
		if !errors.As(err, &failed) || failed.code != want || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := lookUp("plain", dir+"/b"); err == nil || err.(failure).code != notExecutable {
		t.Errorf("%v", err)
	}
}

func TestAnEnvironmentHasEachNameOnceAndTheDefaults(t *testing.T) {
	who := identity{home: "/home/app"}
	got := complete([]string{"A=1", "B=x=y", "A=2", "=z", "none", "N=\x00", "HOME="}, who)
	if !slices.Contains(got, "A=2") || slices.Contains(got, "A=1") || !slices.Contains(got, "B=x=y") || !slices.Contains(got, "HOME=/home/app") {
		t.Errorf("%q", got)
	}
	if !slices.ContainsFunc(got, func(pair string) bool { return strings.HasPrefix(pair, "PATH=/usr/local/sbin:") }) || len(got) != 5 {
		t.Errorf("%q", got)
	}
	got = complete([]string{"PATH=/x", "HOSTNAME=h", "HOME=/y"}, who)
	if !slices.Equal(got, []string{"HOME=/y", "HOSTNAME=h", "PATH=/x"}) {
		t.Errorf("%q", got)
	}
}
