// Package fault marks the moments at which a crash would hurt, so that tests can
// make this program die there, one after the other, and look at what is left. Kills after
// random times would find the moments that are long, and not those that matter.
//
// A mark costs nothing else: without a Hook, Here does nothing.
package fault

// Hook, if set, is called at each mark with its name. Only tests set it, and the
// program that is built for tests (tag faults).
var Hook func(mark string)

// Here is a mark: a moment between two steps, of which the first is done.
func Here(mark string) {
	if Hook != nil {
		Hook(mark)
	}
}
