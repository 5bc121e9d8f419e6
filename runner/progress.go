package runner

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"nspawn-runner/runner/host"
	"nspawn-runner/runner/image"
)

// progress shows what goes on in builds, several at once perhaps: at a terminal
// one live line an image, elsewhere a line for each step, and for scripts an
// object of JSON a line on standard output.
type progress struct {
	h    *Host
	mu   sync.Mutex
	json *json.Encoder // nil unless for scripts
	live *liveLines    // nil unless at a terminal
	end  func()        // ends what draws the time that passes
}

// progressEvent is a line of JSON.
type progressEvent struct {
	Time  time.Time `json:"time"`
	Image string    `json:"image"`
	Event string    `json:"event"` // one of the fields below that it has
	Step  string    `json:"step,omitempty"`
	Note  string    `json:"note,omitempty"`

	Packages *image.PackageCount `json:"packages,omitempty"`
	Result   *result             `json:"result,omitempty"`
}

// showProgress begins to show; close ends it.
func (h *Host) showProgress(asJSON bool) *progress {
	p := &progress{h: h, end: func() {}}
	h.shown = p
	switch {
	case asJSON:
		p.json = json.NewEncoder(h.Stdout)
	case h.Log == nil && host.IsTerminal(h.Stderr) && os.Getenv("TERM") != "dumb":
		p.live = &liveLines{out: h.Stderr.(*os.File)}
		p.end = p.drawEachSecond()
	}
	return p
}

// tell is what an image.Store's Progress calls.
func (p *progress) tell(event image.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.json != nil:
		line := progressEvent{Image: event.Image, Event: "step", Step: event.Step, Note: event.Note, Packages: event.Packages}
		if event.Note != "" {
			line.Event = "note"
		} else if event.Packages != nil {
			line.Event = "packages"
		}
		p.encode(line)
	case event.Note != "":
		p.print("%s: %s", event.Image, event.Note)
	case p.live != nil:
		p.live.update(event)
	case event.Step != "":
		p.print("%s: %s", event.Image, event.Step)
	}
}

// ended says what became of an image.
func (p *progress) ended(m result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live != nil {
		p.live.remove(m.Image)
	}
	if p.json != nil {
		p.encode(progressEvent{Image: m.Image, Event: "result", Result: &m})
		return
	}
	p.print("%s", m)
}

// say prints a line for people, above the live lines.
func (p *progress) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.print(format, args...)
}

// close leaves nothing live on the terminal. Again does no harm.
func (p *progress) close() {
	p.h.shown = nil
	p.end()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live != nil {
		p.live.clear()
		p.live = nil
	}
}

// drawEachSecond draws the live lines until the returned function is called.
func (p *progress) drawEachSecond() (end func()) {
	ended := make(chan struct{})
	ticker := time.NewTicker(time.Second)
	go func() {
		defer ticker.Stop()
		for {
			select {
			case <-ended:
				return
			case <-ticker.C:
			}
			p.mu.Lock()
			if p.live != nil {
				p.live.draw()
			}
			p.mu.Unlock()
		}
	}()
	return sync.OnceFunc(func() { close(ended) })
}

// print needs the lock.
func (p *progress) print(format string, args ...any) {
	if p.live != nil {
		p.live.clear()
		defer p.live.draw()
	}
	fmt.Fprintf(p.h.Stderr, format+"\n", args...)
}

// encode needs the lock. Whoever reads may go away; the builds go on.
func (p *progress) encode(line progressEvent) {
	line.Time = time.Now().UTC().Truncate(time.Millisecond)
	_ = p.json.Encode(line)
}
