package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"

	"nspawn-runner/runner/lock"
	"nspawn-runner/runner/storage"
)

// The range of ids that systemd sets aside for containers (https://systemd.io/UIDS-GIDS), in multiples
// of storage.RangeSize. Machines get their ids from it.
const (
	firstRange = (0x00080000 + storage.RangeSize - 1) / storage.RangeSize
	lastRange  = 0x6FFF0000 / storage.RangeSize
)

// olderRange is how many ids a machine has if its record does not say it.
const olderRange = 65536

// UserIDs returns the first and the last id of the host that machines may get, as user ids and as group
// ids.
func UserIDs() (first, last int) {
	return firstRange * storage.RangeSize, lastRange*storage.RangeSize - 1
}

// idRange is a range of ids of the host.
type idRange struct{ first, count int }

func (r idRange) overlaps(other idRange) bool {
	return r.first < other.first+other.count && other.first < r.first+r.count
}

// ids returns the host's ids that the machine has. A privileged machine has none.
func (r Record) ids() idRange {
	switch {
	case r.RootUID == 0:
		return idRange{}
	case r.IDs == 0:
		return idRange{r.RootUID, olderRange}
	}
	return idRange{r.RootUID, r.IDs}
}

// writeWithRange gives the machine a range of ids that no other machine has, and no user of the host for
// containers (subuid(5)). Then it writes the record. One process at a time does this.
func (s Store) writeWithRange(ctx context.Context, r *Record) error {
	all, err := lock.Directory(ctx, s.Dir, lock.Exclusive)
	if err != nil {
		return err
	}
	defer all.Close()
	taken, err := subordinateIDs("/etc/subuid", "/etc/subgid")
	if err != nil {
		return err
	}
	return s.writeRange(r, taken)
}

// writeRange is writeWithRange with the lock held. taken are the ranges that others than machines have.
func (s Store) writeRange(r *Record, taken []idRange) error {
	records, err := s.Records()
	if err != nil {
		return err
	}
	for _, other := range records {
		taken = append(taken, other.ids())
	}
	free, err := freeRange(taken)
	if err != nil {
		return fmt.Errorf("machine %s: %w", Name(r.ID), err)
	}
	r.RootUID, r.IDs = free.first, free.count
	return r.write(s.dir(r.ID))
}

// freeRange returns a random range that overlaps none of the taken ones. It is random because other
// programs give out ids from the low end.
func freeRange(taken []idRange) (idRange, error) {
	ranges := lastRange - firstRange
	start := rand.IntN(ranges)
	for n := range ranges {
		r := idRange{(firstRange + (start+n)%ranges) * storage.RangeSize, storage.RangeSize}
		if !slices.ContainsFunc(taken, r.overlaps) {
			return r, nil
		}
	}
	first, last := UserIDs()
	return idRange{}, fmt.Errorf("no %d user ids in a row are free from %d to %d: see 'nspawn-runner machine list', /etc/subuid and /etc/subgid",
		storage.RangeSize, first, last)
}

// CheckIDs returns an error if the users of the host leave no ids for machines.
func CheckIDs() error {
	taken, err := subordinateIDs("/etc/subuid", "/etc/subgid")
	if err == nil {
		_, err = freeRange(taken)
	}
	return err
}

// subordinateIDs reads the ranges in files like subuid(5).
func subordinateIDs(paths ...string) ([]idRange, error) {
	var all []idRange
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			words := strings.Split(strings.TrimSpace(line), ":")
			if len(words) != 3 {
				continue
			}
			first, firstErr := strconv.Atoi(words[1])
			count, countErr := strconv.Atoi(words[2])
			if firstErr == nil && countErr == nil {
				all = append(all, idRange{first, count})
			}
		}
	}
	return all, nil
}
