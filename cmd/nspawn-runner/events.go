package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"nspawn-runner/runner"
	"nspawn-runner/runner/host"
	"nspawn-runner/runner/image"
)

// display shows events on standard error, a line for each; at a terminal a build has one
// live line in place of its steps. For scripts, builds are shown as JSON, one object per
// line on standard output.
type display struct {
	out    *os.File
	detail func(line string) // prints what only --verbose and --debug show
	quiet  string            // the image of which no failure is shown

	mu   sync.Mutex
	json *json.Encoder // nil unless for scripts
	live *liveLines    // nil unless there are live lines
	end  func()        // ends what draws the time that passes
}

// newDisplay shows one line for each event.
func newDisplay(out *os.File, stamp func() string) *display {
	return &display{
		out:    out,
		detail: func(line string) { fmt.Fprintln(out, stamp()+line) },
		end:    func() {},
	}
}

// showLive has live lines for builds, where there is a terminal. close ends them.
func (d *display) showLive() {
	if host.IsTerminal(d.out) && os.Getenv("TERM") != "dumb" {
		d.live = &liveLines{out: d.out}
		d.end = d.drawEachSecond()
	}
}

// showJSON shows builds to scripts.
func (d *display) showJSON(out io.Writer) { d.json = json.NewEncoder(out) }

// jsonEvent is a line of JSON.
type jsonEvent struct {
	Time  time.Time `json:"time"`
	Image string    `json:"image"`
	Event string    `json:"event"` // one of the fields below that it has
	Step  string    `json:"step,omitempty"`
	Note  string    `json:"note,omitempty"`

	Packages *image.PackageCount `json:"packages,omitempty"`
	Result   *runner.Maintained  `json:"result,omitempty"`
}

// kind is how JSON calls an event of an image, "" for one that JSON does not have.
func kind(e runner.Event) string {
	switch {
	case e.Image == "":
	case e.Maintained != nil:
		return "result"
	case e.Packages != nil:
		return "packages"
	case e.Note != "":
		return "note"
	case e.Step != "":
		return "step"
	}
	return ""
}

// tell shows an event. Whoever reads JSON may go away; the builds go on.
func (d *display) tell(e runner.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if kind := kind(e); kind != "" && d.json != nil {
		_ = d.json.Encode(jsonEvent{
			Time: time.Now().UTC().Truncate(time.Millisecond), Image: e.Image, Event: kind,
			Step: e.Step, Note: e.Note, Packages: e.Packages, Result: e.Maintained,
		})
		return
	}
	if e.Maintained != nil && e.Maintained.Err() != nil && e.Image == d.quiet {
		return
	}
	if d.live != nil {
		switch {
		case e.Step != "" || e.Packages != nil:
			d.live.update(e)
			return
		case e.Maintained != nil:
			d.live.remove(e.Image)
		}
		d.live.clear()
		defer d.live.draw()
	}
	switch line := e.String(); {
	case e.Output != nil:
		_, _ = d.out.Write(e.Output)
	case e.Detail != "":
		d.detail(line)
	case line != "":
		fmt.Fprintln(d.out, line)
	}
}

// say prints a line for people.
func (d *display) say(format string, args ...any) {
	d.tell(runner.Event{Note: fmt.Sprintf(format, args...)})
}

// close leaves nothing live on the terminal. Again does no harm.
func (d *display) close() {
	d.end()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.live != nil {
		d.live.clear()
		d.live = nil
	}
}

// drawEachSecond draws the live lines until the returned function is called.
func (d *display) drawEachSecond() (end func()) {
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
			d.mu.Lock()
			if d.live != nil {
				d.live.draw()
			}
			d.mu.Unlock()
		}
	}()
	return sync.OnceFunc(func() { close(ended) })
}
