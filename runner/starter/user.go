package starter

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// identity is the user of a program.
type identity struct {
	uid, gid int
	// groups are all groups of the user, also gid.
	groups []int
	home   string
}

// maxDatabase bounds how much of a passwd(5) or group(5) is read, in bytes.
const maxDatabase = 1 << 20

// readSmall reads a regular file of the image, and only the beginning of a long one. Any other file, or a file that
// does not exist, counts as empty.
func readSmall(path string) string {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return ""
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return ""
	}
	text, _ := io.ReadAll(io.LimitReader(file, maxDatabase))
	return string(text)
}

// identify finds the user USER[:GROUP], as docker does. A number is an id, also if it is the name of a user. Of two
// lines that match, the first one counts. If a group is given, there are no further groups. A number need not be in
// passwd(5). "" stands for 0.
func identify(wanted, passwd, group string) (identity, error) {
	user, of, _ := strings.Cut(wanted, ":")
	who := identity{home: "/"}
	name := ""
	number, err := strconv.Atoi(user)
	byNumber := err == nil || user == ""
	found := false
	for line := range strings.Lines(passwd) {
		entry, ok := parseUser(line)
		if !ok || byNumber && entry.uid != number || !byNumber && entry.name != user {
			continue
		}
		who.uid, who.gid, name, found = entry.uid, entry.gid, entry.name, true
		if entry.home != "" {
			who.home = entry.home
		}
		break
	}
	if !found {
		if !byNumber {
			return who, fmt.Errorf("user %q is not in /etc/passwd of the image", user)
		}
		if !isID(number) {
			return who, fmt.Errorf("user %q: ids are numbers from 0 to %d", user, maxID)
		}
		who.uid = number
	}
	if of != "" {
		who.gid, err = findGroup(of, group)
		who.groups = []int{who.gid}
		return who, err
	}
	who.groups = groupsOf(name, who.gid, group)
	return who, nil
}

// maxID is the highest id that docker allows. The kernel uses 32 bits, so 4294967296 would be root.
const maxID = 1<<31 - 1

func isID(number int) bool { return number >= 0 && number <= maxID }

// entry is an entry of passwd(5).
type entry struct {
	name     string
	uid, gid int
	home     string
}

func parseUser(line string) (entry, bool) {
	fields := strings.Split(strings.TrimSpace(line), ":")
	if len(fields) < 4 {
		return entry{}, false
	}
	uid, err := strconv.Atoi(fields[2])
	gid, gidErr := strconv.Atoi(fields[3])
	if err != nil || gidErr != nil || !isID(uid) || !isID(gid) {
		return entry{}, false
	}
	read := entry{name: fields[0], uid: uid, gid: gid}
	if len(fields) > 5 {
		read.home = fields[5]
	}
	return read, true
}

// parseGroup reads a line of group(5).
func parseGroup(line string) (name string, gid int, members []string, ok bool) {
	fields := strings.Split(strings.TrimSpace(line), ":")
	if len(fields) < 3 {
		return "", 0, nil, false
	}
	gid, err := strconv.Atoi(fields[2])
	if len(fields) > 3 {
		members = strings.Split(fields[3], ",")
	}
	return fields[0], gid, members, err == nil && isID(gid)
}

// findGroup finds a group by name or number.
func findGroup(wanted, group string) (int, error) {
	if number, err := strconv.Atoi(wanted); err == nil && isID(number) {
		return number, nil
	}
	for line := range strings.Lines(group) {
		if name, gid, _, ok := parseGroup(line); ok && name == wanted {
			return gid, nil
		}
	}
	return 0, fmt.Errorf("group %q is not in /etc/group of the image", wanted)
}

// maxGroups is how many groups setgroups(2) accepts.
const maxGroups = 65536

// groupsOf returns the groups of a user, the user's own group first.
func groupsOf(user string, own int, group string) []int {
	groups := []int{own}
	known := map[int]bool{own: true}
	for line := range strings.Lines(group) {
		_, gid, members, ok := parseGroup(line)
		if ok && user != "" && !known[gid] && len(groups) < maxGroups && slices.Contains(members, user) {
			known[gid] = true
			groups = append(groups, gid)
		}
	}
	return groups
}
