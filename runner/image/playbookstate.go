package image

// PlaybookState says whether the playbook of an image is the one that made its chroot.
type PlaybookState string

// What a current generation's record says of the image's playbook.
const (
	PlaybookNone    PlaybookState = "none"    // the image has no playbook
	PlaybookRan     PlaybookState = "ran"     // as it is now
	PlaybookWaiting PlaybookState = "waiting" // it is newer, or never ran
	PlaybookUnknown PlaybookState = "unknown" // there is no record
)

// PlaybookState says whether the playbook that a current generation's record has is the
// one that is there.
func (i Image) PlaybookState(ran Record) PlaybookState {
	if i.Playbook == "" {
		return PlaybookNone
	}
	book, err := i.ReadPlaybook()
	switch {
	case !i.Exists:
		return PlaybookWaiting
	case err != nil || ran.Format == 0:
		return PlaybookUnknown
	case ran.Playbook != nil && ran.Playbook.SHA256 == book.SHA256:
		return PlaybookRan
	}
	return PlaybookWaiting
}
