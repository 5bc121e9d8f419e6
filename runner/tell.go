package runner

import "fmt"

func (h *Host) tell(event Event) {
	if h.events != nil {
		h.events(event)
	}
}

// note tells a line for people.
func (h *Host) note(format string, args ...any) { h.tell(Event{Note: fmt.Sprintf(format, args...)}) }

// noteOf tells a line for people about an image.
func (h *Host) noteOf(name, format string, args ...any) {
	h.tell(Event{Image: name, Note: fmt.Sprintf(format, args...)})
}

// detail tells what is done to those who want to know each thing.
func (h *Host) detail(format string, args ...any) {
	h.tell(Event{Detail: fmt.Sprintf(format, args...)})
}

// output tells what programs of builds print.
type output struct{ host *Host }

func (o output) Write(text []byte) (int, error) {
	o.host.tell(Event{Output: text})
	return len(text), nil
}
