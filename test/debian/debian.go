// Package debian lists what runs in a machine because a machine is a Debian: the
// programs that people install on one, and what they expect of the system below them.
//
// The list is kept once. `mage test:debian` runs it, in machines of each image and on
// each backend where that can matter, and docs/debian.md is its table, which a test of this
// package compares.
package debian

import (
	"slices"
	"time"
)

// Case is one line of the table: a program, or a way of using it.
type Case struct {
	Name string
	// Note is what its users have to know, if anything.
	Note string
	// Refused is why it does not work, and is not going to. Its script shows that.
	Refused string
	// Kernel is the oldest release of the host's kernel with which it works, such as 6.7, if not each.
	Kernel string
	// Script is bash that root executes in a machine, after [Prelude]. It fails where
	// the case does not work.
	Script string
	// Images and Backends are those of the machines that run it, if not all of its group.
	Images, Backends []string
}

// Group is what one machine runs, case after case: a boot for each would take longer
// than the cases.
type Group struct {
	Name string
	// Takes is how long one machine takes, where that is long: such a one is started first.
	Takes time.Duration
	// Images, and Backends, are what its machines are of: all combinations.
	Images, Backends []string
	// Setup comes before the first case.
	Setup string
	Cases []Case
}

// The images that machines are of, and the backends.
var (
	Images      = []string{"bookworm", "trixie"}
	allBackends = []string{"overlay", "btrfs", "tmpfs"}
)

// Groups are all cases.
var Groups = []Group{docker, podman, sandboxes, packaging, trees, services, system, network, refusals}

// In says whether machines of an image on a backend run the case.
func (c Case) In(image, backend string) bool {
	has := func(list []string, name string) bool { return len(list) == 0 || slices.Contains(list, name) }
	return has(c.Images, image) && has(c.Backends, backend)
}

// Prelude comes before each script. The machine is thrown away afterwards, so the
// scripts of a group leave to the next ones what these may use.
const Prelude = `
exec 2>&1
set -eu -o pipefail
suite=$(. /etc/os-release; echo "$VERSION_CODENAME")
export DEBIAN_FRONTEND=noninteractive
# as USER executes its standard input as an ordinary user, who is logged in.
as() { su - "$1" -c "suite=$suite bash -eux -o pipefail"; }
# refused WHY COMMAND fails unless the command fails and says why: a regular expression.
refused() {
	local why=$1 said; shift
	if said=$("$@" 2>&1 </dev/null); then echo "this worked: $*: $said"; exit 1; fi
	grep -qE "$why" <<<"$said" || { echo "this failed, but not for '$why': $*: $said"; exit 1; }
}
# box DIR makes a tree of a few tools that can be a container.
box() {
	mkdir -p "$1"/{bin,etc,tmp,srv,usr}; ln -s ../bin "$1/usr/bin"
	cp /bin/busybox "$1/bin"
	busybox --install -s "$1/bin"
	echo 'a page' >"$1/srv/index.html"
}
set -x
`
