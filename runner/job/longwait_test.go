package job

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestALongWaitIsASectionAndAShortOneIsNone(t *testing.T) {
	var log []string
	said := make(chan struct{}, 10)
	note := func(format string, args ...any) {
		log = append(log, fmt.Sprintf(format, args...))
		said <- struct{}{}
	}
	w := beginWait(note, []string{"service a", "service b", "service b"}, time.Millisecond)
	<-said
	w.ready("service b", "ready")
	w.end()
	w.ready("service a", "ready")
	if len(log) != 3 || !strings.HasSuffix(log[0], "[collapsed=true]\r\x1b[0KStill waiting for service a, service b, service b") ||
		!strings.HasPrefix(log[1], "service b: ready after 0.") || !strings.Contains(log[2], "section_end:") {
		t.Errorf("%q", log)
	}
	if !slices.Equal(w.left, []string{"service b"}) {
		t.Errorf("%q", w.left)
	}

	log = nil
	w = beginWait(note, []string{"service a"}, time.Hour)
	w.ready("service a", "ready")
	w.end()
	w.show() // the timer fired as it was stopped
	if log != nil {
		t.Errorf("%q", log)
	}
}
