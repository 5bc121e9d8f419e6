package job

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"nspawn-runner/runner/gitlab"
)

// longWait is how long services may take before the job's log gets a section about the wait.
const longWait = 3 * time.Second

// waiting writes a section to the job's log if a job waits long for services. Its header names the
// services that are not ready by then, and GitLab's page shows how long the section took.
type waiting struct {
	note  func(format string, args ...any)
	began time.Time

	mu    sync.Mutex
	left  []string // what is waited for
	timer *time.Timer
	shown bool
	over  bool
}

const waitingSection = "waiting_for_services"

// beginWait begins to wait for services. The section begins after the time after.
func beginWait(note func(format string, args ...any), services []string, after time.Duration) *waiting {
	w := &waiting{note: note, began: time.Now(), left: slices.Clone(services)}
	w.timer = time.AfterFunc(after, w.show)
	return w
}

func (w *waiting) show() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return
	}
	w.shown = true
	w.note("%s", gitlab.SectionStart(waitingSection, "Still waiting for "+strings.Join(w.left, ", "), w.began))
}

// ready notes that the wait for one of the services is over. what is its result, such as "ready".
func (w *waiting) ready(service, what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if i := slices.Index(w.left, service); i >= 0 {
		w.left = slices.Delete(w.left, i, i+1)
	}
	if w.shown && !w.over {
		w.note("%s", fmt.Sprintf("%s: %s after %.1f s", service, what, time.Since(w.began).Seconds()))
	}
}

// end ends the wait.
func (w *waiting) end() {
	w.timer.Stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	if w.shown {
		w.note("%s", gitlab.SectionEnd(waitingSection, time.Now()))
	}
}
