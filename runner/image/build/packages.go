package build

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"time"
)

// dpkgLog is where dpkg notes each thing it does, in the tree.
const dpkgLog = "var/log/dpkg.log"

// packagesInterval is how often it is looked at: for eyes.
const packagesInterval = 500 * time.Millisecond

// watchPackages tells of what dpkg does in the build's tree until the returned
// function is called. It reads dpkg's own log, so it needs no help from the
// program that calls dpkg, be that a bootstrap or ansible.
func (b *Build) watchPackages() (stop func()) {
	if b.Progress == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	_, offset := readFrom(b.Root, dpkgLog, math.MaxInt64)
	go func() {
		defer close(ended)
		var count PackageCount
		ticker := time.NewTicker(packagesInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			text, _ := readFrom(b.seenTree(), dpkgLog, offset)
			end := bytes.LastIndexByte(text, '\n') + 1
			offset += int64(end)
			if more := countPackages(text[:end]); more != (PackageCount{}) {
				count.Done += more.Done
				count.Begun += more.Begun
				now := count
				b.tell(Event{Packages: &now})
			}
		}
	}()
	return func() {
		cancel()
		<-ended
	}
}

// seenTree is the tree as the program sees it that fills it: a bootstrap may make it in memory of its own.
func (b *Build) seenTree() string {
	if pid := b.program.Load(); pid > 0 {
		return fmt.Sprintf("/proc/%d/root%s", pid, b.Root)
	}
	return b.Root
}

// countPackages reads lines of dpkg's log: dpkg(1), option --log.
func countPackages(log []byte) (count PackageCount) {
	for line := range bytes.Lines(log) {
		switch words := bytes.Fields(line); {
		case len(words) < 4:
		case string(words[2]) == "install", string(words[2]) == "upgrade":
			count.Begun++
		case string(words[2]) == "status" && string(words[3]) == "installed":
			count.Done++
		}
	}
	return count
}

// readFrom reads what a file of a tree has behind an offset, and the file's size.
// What cannot be read, is empty: it may not be there yet.
func readFrom(root, path string, offset int64) (text []byte, size int64) {
	tree, err := os.OpenRoot(root)
	if err != nil {
		return nil, 0
	}
	defer tree.Close()
	info, err := tree.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return nil, 0
	}
	file, err := tree.Open(path)
	if err != nil {
		return nil, 0
	}
	defer file.Close()
	size = info.Size()
	text, err = io.ReadAll(io.NewSectionReader(file, offset, max(0, size-offset)))
	if err != nil {
		return nil, size
	}
	return text, size
}
