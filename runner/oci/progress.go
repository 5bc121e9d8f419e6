package oci

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"nspawn-runner/runner/size"
)

// progress sends lines about the progress of a pull, at growing intervals.
type progress struct {
	tell    func(line string)
	name    string
	whole   int64
	fetched atomic.Int64
	began   time.Time
}

// firstLine is the time of the first line about the progress of a pull. Each later time is one and a half times the
// one before.
var firstLine = 4 * time.Second

// counted counts the bytes that are fetched of one layer.
type counted struct {
	progress *progress
	bytes    int64
}

// Write never fails.
func (c *counted) Write(b []byte) (int, error) {
	c.bytes += int64(len(b))
	c.progress.fetched.Add(int64(len(b)))
	return len(b), nil
}

// takeBack subtracts these bytes, because the layer is fetched again.
func (c *counted) takeBack() { c.progress.fetched.Add(-c.bytes) }

// watch sends lines until ctx ends.
func (p *progress) watch(ctx context.Context) {
	for next := firstLine; ; next += next / 2 {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(p.began.Add(next))):
			p.note("Pulling %s (%d of %s)", p.name, p.fetched.Load()>>20, size.MiB(p.whole))
		}
	}
}

func (p *progress) note(format string, args ...any) {
	p.tell(fmt.Sprintf(format, args...))
}
