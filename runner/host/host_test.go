package host

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestAProcessIsItselfOnlyWhileItLives(t *testing.T) {
	cmd := exec.Command("sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := FindProcess(cmd.Process.Pid)
	if err != nil || !p.Alive() {
		t.Fatalf("%+v, %v", p, err)
	}
	if other := (Process{p.PID, p.Started + 1}); other.Alive() {
		t.Error("another process of the same pid counts as this one")
	}
	cmd.Process.Kill()
	for deadline := time.Now().Add(5 * time.Second); p.Alive(); {
		if time.Now().After(deadline) {
			t.Fatal("a zombie counts as alive")
		}
	}
	cmd.Wait()
	if _, err := p.Root(); err == nil {
		t.Error("the root of a dead process")
	}
}

func TestAProcessesNameDoesNotConfuse(t *testing.T) {
	dir := t.TempDir()
	program := dir + "/a) R 1 (b"
	if err := exec.Command("cp", "/bin/sleep", program).Run(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	p, err := FindProcess(cmd.Process.Pid)
	self, _ := FindProcess(os.Getpid())
	if err != nil || p.Started < self.Started {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestFactsOfThisHost(t *testing.T) {
	if id := BootID(); len(id) != 36 {
		t.Errorf("boot id %q", id)
	}
	before := Uptime()
	if now := Uptime(); before <= 0 || now < before {
		t.Errorf("uptime %v, then %v", before, now)
	}
	if memory, err := AvailableMemory(); err != nil || memory == 0 {
		t.Errorf("%d bytes, %v", memory, err)
	}
	pipe, other, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	defer other.Close()
	if IsTerminal(pipe) || IsTerminal("no file") {
		t.Error("a pipe or a string is a terminal")
	}
}
