package integration

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// registry is Debian's docker-registry on the loopback of the lab, without TLS.
type registry struct {
	host string // HOST:PORT
	auth authn.Authenticator
	stop func()
}

// registryUser may pull from and push to a registry that is closed, with this password; the
// line is one of htpasswd(1).
const (
	registryUser, registryPassword = "user", "pass"
	registryLine                   = "user:$2b$05$abcdefghijklmnopqrstuuZFBUbfXoM8LFiPx8LYlO/sXZB/Cwk3K"
)

// startRegistry starts a registry that lasts as long as the test. A closed one wants a
// password for everything.
func startRegistry(t *testing.T, closed bool) *registry {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	r := &registry{host: free.Addr().String(), auth: authn.Anonymous}
	must(t, free.Close())
	dir := t.TempDir()
	config := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s/data}}\nhttp: {addr: '%s'}\n", dir, r.host)
	if closed {
		must(t, os.WriteFile(dir+"/htpasswd", []byte(registryLine+"\n"), 0o600))
		config += fmt.Sprintf("auth: {htpasswd: {realm: lab, path: %s/htpasswd}}\n", dir)
		r.auth = &authn.Basic{Username: registryUser, Password: registryPassword}
	}
	must(t, os.WriteFile(dir+"/config.yml", []byte(config), 0o600))
	cmd := exec.Command(os.Getenv("NSPAWN_RUNNER_REGISTRY"), "serve", dir+"/config.yml")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	must(t, cmd.Start())
	r.stop = func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
	t.Cleanup(r.stop)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if answer, err := http.Get("http://" + r.host + "/v2/"); err == nil {
			answer.Body.Close()
			return r
		}
		if time.Now().After(deadline) {
			r.stop()
			t.Fatalf("docker-registry does not start: %s", &said)
		}
	}
}

// push puts an image into the registry, and returns the name by which jobs pull it.
func (r *registry) push(t *testing.T, to string, image v1.Image) string {
	t.Helper()
	ref, err := name.ParseReference(r.host+"/"+to, name.Insecure)
	must(t, err)
	must(t, remote.Write(ref, image, remote.WithAuth(r.auth)))
	return ref.Name()
}

// allow is the configuration with which jobs may pull from it.
func (r *registry) allow() string {
	return fmt.Sprintf("oci_images: ['%s/*']\noci_insecure: ['%s']\n", r.host, r.host)
}

// imageWith is an image for this host, with one layer for each list of files: NAME and content
// by turns, all of them executable.
func imageWith(t *testing.T, config v1.Config, layers ...[]string) v1.Image {
	t.Helper()
	image, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: runtime.GOARCH, RootFS: v1.RootFS{Type: "layers"}, Config: config})
	must(t, err)
	for _, files := range layers {
		var out bytes.Buffer
		w := tar.NewWriter(&out)
		for i := 0; i < len(files); i += 2 {
			must(t, w.WriteHeader(&tar.Header{Name: files[i], Mode: 0o755, Uid: 1000, Gid: 50, Typeflag: tar.TypeReg, Size: int64(len(files[i+1]))}))
			_, err := io.WriteString(w, files[i+1])
			must(t, err)
		}
		must(t, w.Close())
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(out.Bytes())), nil })
		must(t, err)
		image, err = mutate.AppendLayers(image, layer)
		must(t, err)
	}
	return image
}

// pulled are the images of registries on a host, as image list --json has them.
type pulled []struct {
	Digest, Path string
	References   []string
	Size         int64
}

func (h *host) pulled(t *testing.T) (all pulled) {
	t.Helper()
	must(t, json.Unmarshal([]byte(h.drives(t, "image", "list", "--json").stdout), &all))
	return all
}

// forgets removes all images of registries when the test ends.
func (h *host) forgets(t *testing.T) {
	t.Cleanup(func() {
		// t.Context is over by now.
		must(t, os.RemoveAll(h.state+"/.oci/.names"))
		for _, dir := range strings.Fields(shell(t, "cd "+h.state+"/.oci && echo sha256-*")) {
			shell(t, h.driver+" --config "+h.config+" image remove "+strings.Replace(dir, "-", ":", 1)+" || [ ! -d "+h.state+"/.oci/"+dir+" ]")
		}
		h.configure(t, "")
	})
}

func TestImagesArePulledFromARealRegistryAndKeptUntilTheyAreTooMuch(t *testing.T) {
	needLab(t)
	onDisks(t, func(t *testing.T, h *host) {
		r := startRegistry(t, false)
		h.configure(t, r.allow())
		h.forgets(t)
		one := r.push(t, "team/one:1", imageWith(t, v1.Config{}, []string{"etc/version", "1", "bin/gone", ""}, []string{"bin/.wh.gone", "", "bin/run", "x"}))
		c := h.drives(t, "image", "pull", one)
		wantLog(t, c.stderr, "Pulling "+one+" (1 MiB)\nPulled "+one+": ", one+": sha256:")
		all := h.pulled(t)
		if len(all) != 1 || !slices.Equal(all[0].References, []string{one}) || !strings.HasPrefix(all[0].Path, h.state+"/.oci/sha256-") {
			t.Fatalf("%+v", all)
		}
		if got := shell(t, "cd "+all[0].Path+" && cat etc/version && stat -c ' %n %u %g %a' bin/* usr tmp"); got != "1 bin/run 1000 50 755\n usr 0 0 755\n tmp 0 0 1777\n" {
			t.Errorf("%q", got)
		}
		is := shell(t, "stat -c %i "+all[0].Path)
		if (strings.TrimSpace(is) == "256") != (h.backend == "btrfs") {
			t.Errorf("the tree is, or is no subvolume on %s", h.backend)
		}
		wantLog(t, h.drives(t, "chroot-list").stdout, "bookworm "+h.state+"/bookworm\n", one+" "+all[0].Path+"\n")
		wantLog(t, h.drives(t, "chroot-list", "--long").stdout, "REFERENCE", one, all[0].Digest[:19])
		if again := h.drives(t, "image", "pull", one); strings.Contains(again.stderr, "Pulling") {
			t.Errorf("pulled again: %s", again.stderr)
		}

		// A tag that moves, and a maintenance that looks.
		h.configure(t, fmt.Sprintf("oci_images: ['%s', '%s/other/*', '%s/none:1']\noci_insecure: ['%s']\n", one, r.host, r.host, r.host))
		r.push(t, "team/one:1", imageWith(t, v1.Config{}, []string{"etc/version", "2"}))
		c = h.drives(t, "chroot-maintenance")
		wantLog(t, c.stderr, "Pulled "+one+": ", "warning: not refreshed: image "+r.host+"/none:1: the registry "+r.host+" answers 404")
		if all = h.pulled(t); len(all) != 2 {
			t.Fatalf("%+v", all)
		}
		newest := slices.IndexFunc(all, func(i struct {
			Digest, Path string
			References   []string
			Size         int64
		}) bool {
			return len(i.References) > 0
		})
		if got := shell(t, "cat "+all[newest].Path+"/etc/version"); got != "2" {
			t.Errorf("after the maintenance: %q", got)
		}
		// Too much: the next collection takes what was unused for the longest time.
		h.configure(t, r.allow()+"oci_cache_max: 1500K\n")
		h.collects(t, "image of a registry, and more is kept than oci_cache_max allows")
		if left := h.pulled(t); len(left) != 1 || left[0].Digest != all[newest].Digest {
			t.Errorf("%+v", left)
		}
		wantLog(t, h.drives(t, "image", "remove", one).stderr, all[newest].Digest+": removed\n")
		if left := h.pulled(t); len(left) != 0 {
			t.Errorf("%+v", left)
		}
	})
}

func TestAClosedRegistryGivesAnImageToItsUsersOnly(t *testing.T) {
	needLab(t)
	h := onHost(t, "overlay")
	r := startRegistry(t, true)
	h.configure(t, r.allow())
	h.forgets(t)
	ref := r.push(t, "team/one:1", imageWith(t, v1.Config{}, []string{"a", "1"}))
	c := h.driveWith(t, []string{"DOCKER_CONFIG=" + t.TempDir()}, "image", "pull", ref)
	wantLog(t, c.stderr, "answers 401 Unauthorized: there is no such image, or it is not given out without credentials")
	config := t.TempDir()
	text := fmt.Sprintf(`{"auths": {"%s/team": {"auth": "%s"}}, "credsStore": "evil"}`, r.host, base64.StdEncoding.EncodeToString([]byte(registryUser+":"+registryPassword)))
	must(t, os.WriteFile(filepath.Join(config, "config.json"), []byte(text), 0o600))
	c = h.driveWith(t, []string{"DOCKER_CONFIG=" + config}, "image", "pull", ref)
	if c.status != 0 || strings.Contains(c.stderr, registryPassword) {
		t.Errorf("%+v", c)
	}
	c = h.driveWith(t, []string{"DOCKER_CONFIG=" + t.TempDir()}, "image", "pull", ref)
	wantLog(t, c.stderr, "answers 401 Unauthorized")
}

func TestAPullThatIsStoppedLeavesNothingAndOneThatIsKilledIsCollected(t *testing.T) {
	needLab(t)
	h := onHost(t, "btrfs")
	r := startRegistry(t, false)
	h.configure(t, r.allow())
	h.forgets(t)
	noise := make([]string, 0, 4000)
	for i := range 2000 {
		noise = append(noise, fmt.Sprintf("dir/%d", i), strings.Repeat(fmt.Sprint(i), 2000))
	}
	ref := r.push(t, "large:1", imageWith(t, v1.Config{}, []string{"a", "1"}, noise))
	// during has a pull, and stops it when it has begun to unpack; false if it was faster.
	during := func(signal syscall.Signal) bool {
		h.drive(t, "image", "remove", ref)
		cmd := exec.Command(h.driver, "--config", h.config, "image", "pull", ref)
		must(t, cmd.Start())
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		for {
			if all, _ := filepath.Glob(h.state + "/.oci/.pulls/*/tree/*"); len(all) > 0 {
				must(t, cmd.Process.Signal(signal))
				began := time.Now()
				if err := <-ended; err == nil {
					return false
				}
				if took := time.Since(began); took > 10*time.Second {
					t.Errorf("it took %s to stop", took)
				}
				return true
			}
			select {
			case <-ended:
				return false
			case <-time.After(time.Millisecond):
			}
		}
	}
	await(t, "a pull that is stopped", func() bool { return during(syscall.SIGTERM) })
	if left := shell(t, "ls -A "+h.state+"/.oci/.pulls"); left != "" || len(h.pulled(t)) > 0 {
		t.Errorf("after a stop: %q, %+v", left, h.pulled(t))
	}
	await(t, "a pull that is killed", func() bool { return during(syscall.SIGKILL) })
	await(t, "the end of the process that unpacks", func() bool { return slices.Contains(h.garbage(t), "pull it was killed") })
	h.collects(t, "pull it was killed")
	h.drives(t, "image", "pull", ref)
	if got := h.pulled(t); len(got) != 1 {
		t.Errorf("%+v", got)
	}
}
