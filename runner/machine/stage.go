package machine

import (
	"encoding/json"
	"os"
	"path/filepath"

	"nspawn-runner/runner/host"
	"nspawn-runner/runner/printable"
)

// stageNote says which stage of a job runs, and in which process. The stage ends with the process.
type stageNote struct {
	Stage   string        `json:"stage"`
	Process *host.Process `json:"process"`
}

// NoteStage notes the stage of a job that this process runs, for people.
func (s Store) NoteStage(job, stage string) error {
	self, err := host.FindProcess(os.Getpid())
	if err != nil {
		return err
	}
	text, err := json.Marshal(stageNote{printable.Line(stage), &self})
	if err != nil {
		return err
	}
	return s.writeNote(job, "stage.json", text)
}

// stage returns the stage of a job that runs, or "".
func (s Store) stage(job string) string {
	text, err := os.ReadFile(filepath.Join(s.dir(job), "stage.json"))
	var note stageNote
	if err != nil || json.Unmarshal(text, &note) != nil || note.Process == nil || !note.Process.Alive() {
		return ""
	}
	return printable.Line(note.Stage)
}
