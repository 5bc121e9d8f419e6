package image
import ("testing";"os";"context";"strings")
func TestPerf(t *testing.T) {
 if os.Getenv("PERF")=="" { t.Skip() }
 s := &Store{StateDir: "/var/tmp/img/state", PlaybookDirs: []string{"/var/tmp/img"}}
 s.Verbose=os.Stderr 
 for _, n := range strings.Fields(os.Getenv("PERF")) {
 _, err := s.Create(context.Background(), n, CreateOptions{Suite:"trixie"})
 t.Log(err)
 }
}
