// Package host knows facts of the computer that this program runs on: its boot, its
// memory, its processes, and whether a person sits at a stream. It changes nothing.
package host
