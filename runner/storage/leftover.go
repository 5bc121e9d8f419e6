package storage

import "context"

// Leftover is something that nobody owns any more.
type Leftover struct {
	What string // machine, unit, build, image, base, downloads, trash...
	Path string // or the name of what has none
	Why  string // why nobody will remove it
	// Remove looks again, under the lock of whoever might own it by now, and
	// removes it if nobody does. That it is gone already is success.
	Remove func(ctx context.Context) error
}
