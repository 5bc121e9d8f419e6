package oci

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// progress tells how far a pull is, in lines that get rarer.
type progress struct {
	tell    func(line string)
	name    string
	whole   int64
	fetched atomic.Int64
	began   time.Time
}

// firstLine is when a pull that still goes on tells how far it is; each further line comes a
// half later than the one before.
var firstLine = 4 * time.Second

// counted counts what is fetched of one layer.
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

// takeBack counts nothing of it any more: it has to be fetched again.
func (c *counted) takeBack() { c.progress.fetched.Add(-c.bytes) }

// watch tells until ctx ends.
func (p *progress) watch(ctx context.Context) {
	for next := firstLine; ; next += next / 2 {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(p.began.Add(next))):
			p.note("Pulling %s (%d of %s)", p.name, p.fetched.Load()/1e6, mb(uint64(p.whole)))
		}
	}
}

func (p *progress) note(format string, args ...any) {
	p.tell(fmt.Sprintf(format, args...))
}

// mb is an amount of bytes, for messages.
func mb(bytes uint64) string { return fmt.Sprintf("%d MB", (bytes+999999)/1e6) }
