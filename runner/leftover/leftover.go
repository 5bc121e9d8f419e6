// Package leftover says what a leftover is: something that nobody owns any more. The
// packages whose things are left list them; the garbage collector removes what it is told
// of, and the doctor counts it.
package leftover

import "context"

// Item is one leftover.
type Item struct {
	What string // machine, unit, build, image, base, downloads, trash...
	Path string // or the name of what has none
	Why  string // why nobody will remove it
	// Remove looks again, under the lock of whoever might own it by now, and
	// removes it if nobody does. That it is gone already is success.
	Remove func(ctx context.Context) error
}
