package image
import ("testing";"os";"context";"strings";"time")
func TestTmp(t *testing.T) {
 if os.Getenv("TMPT")=="" { t.Skip() }
 s := &Store{StateDir: "/var/tmp/img/state2", PlaybookDirs: []string{"/work/main/playbooks"}}
 start := time.Now()
 s.Progress = func(i, x string) { t.Log(time.Since(start), i, x) }
 for _, n := range strings.Fields(os.Getenv("TMPT")) {
 start = time.Now()
 _, err := s.Maintain(context.Background(), n)
 t.Log(time.Since(start), err)
 if err != nil { t.Log(dump(s)) }
 }
}
