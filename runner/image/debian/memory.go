package debian

import (
	"slices"
	"strconv"

	"nspawn-runner/runner/host"
)

// A bootstrap writes ten thousand small files, most of them more than once: in
// memory that takes two thirds of the time, the copy to the disk included.
const (
	// memoryMax is how much a bootstrap may take of it. Without packages of its
	// own an image needs a third, downloads included.
	memoryMax = 2 << 30
	// memoryFree is how much the host must have then, since its jobs want some.
	memoryFree = 2 * memoryMax
)

// fitsMemory says whether there is room in memory for the tree of a bootstrap. How large
// the packages are that the image has besides those of all images, is not known. And
// debootstrap leaves its log in the tree, which is wanted when it fails.
func (o Bootstrap) fitsMemory() bool {
	if len(o.Include) > len(included) || o.Variant != "minbase" || o.Program != "mmdebstrap" {
		return false
	}
	available, err := host.AvailableMemory()
	return err == nil && available >= memoryFree
}

// fillInMemory lays a tmpfs over the directory $0, of at most $1 bytes, and has the
// other arguments fill it. Then it copies what they made to where the tmpfs hides
// it. It is for a mount namespace of its own, with which the tmpfs ends.
const fillInMemory = `exec 3<"$0" && mount -t tmpfs -o "mode=755,size=$1" memory "$0" && shift && "$@" 3<&- && ` +
	`exec cp --archive --one-file-system --no-target-directory -- "$0" /proc/self/fd/3/.`

// inMemory is the command line that fills root as command does.
func inMemory(root string, command []string) []string {
	return slices.Concat([]string{"sh", "-c", fillInMemory, root, strconv.Itoa(memoryMax)}, command)
}
