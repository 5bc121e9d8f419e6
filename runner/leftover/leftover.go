// Package leftover defines leftovers: things that no living job or build owns any more. Each
// package lists the leftovers of its own kind. gc removes them, and the doctor counts them.
package leftover

import "context"

// Item is one leftover.
type Item struct {
	What string // machine, unit, build, image, base, downloads, trash...
	Path string // its path, or its name if it has none, as a unit
	Why  string // why it has no owner, for people
	// Remove takes the lock of the possible owner, checks again that the item has no owner, and
	// removes it. It succeeds if the item is gone already.
	Remove func(ctx context.Context) error
}
