package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"nspawn-runner/runner/lock"
)

func TestAnImageIsPulledOnceAndStartsFromDiskThen(t *testing.T) {
	h := newHub(t)
	s, told := storeOf(t, h)
	ref := h.push(t, "team/api:1", imageOf(t, []string{"a", "1", "b", "1"}, []string{"a", "2", ".wh.b", ""}))
	image := get(t, s, Request{Name: ref})
	if text(t, image, "a") != "2" {
		t.Error("the upper layer is not above")
	}
	if _, err := os.Stat(filepath.Join(image.Path, "b")); err == nil {
		t.Error("a removed file is there")
	}
	want := Config{Entrypoint: []string{"/entry"}, Command: []string{"run"}, Environment: []string{"A=1"}, User: "70:70", WorkingDir: "/srv", StopSignal: "SIGINT", Ports: []uint16{80, 5432}}
	if fmt.Sprint(image.Config) != fmt.Sprint(want) || !slices.Equal(image.References, []string{ref}) || image.Size == 0 || time.Since(image.Pulled) > time.Minute || time.Since(image.Used) > time.Minute {
		t.Errorf("%+v", image)
	}
	if lines := told.take(); !strings.HasPrefix(lines, "Pulling "+ref+" (1 MiB)\nPulled "+ref+": 1 MiB, unpacked 1 MiB, in ") {
		t.Error(lines)
	}
	h.requests()
	again := get(t, s, Request{Name: ref})
	if again.Path != image.Path || told.take() != "" {
		t.Errorf("%+v", again)
	}
	if asked := h.requests(); count(asked, "/manifests/") != 1 || count(asked, "HEAD ") != 1 || count(asked, "/blobs/") != 0 {
		t.Errorf("a tag that did not move costs %q", asked)
	}
	byDigest := h.host + "/team/api@" + image.Digest
	get(t, s, Request{Name: byDigest})
	if asked := h.requests(); count(asked, "/blobs/") > 1 { // the configuration
		t.Errorf("a digest that is here costs %q", asked)
	}
	get(t, s, Request{Name: byDigest})
	if asked := h.requests(); len(asked) != 0 {
		t.Errorf("a digest that was asked for costs %q", asked)
	}
	h.push(t, "team/api:1", imageOf(t, []string{"a", "3"}))
	if moved := get(t, s, Request{Name: ref}); text(t, moved, "a") != "3" || text(t, image, "a") != "2" {
		t.Error("a tag that moved")
	}
	wantTidy(t, s)
}

func TestTheImageForThisHostsPlatformIsPulled(t *testing.T) {
	h := newHub(t)
	s, _ := storeOf(t, h)
	other := "s390x"
	if runtime.GOARCH == other {
		other = "amd64"
	}
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: imageOf(t, []string{"a", "other"}), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: other}}},
		mutate.IndexAddendum{Add: imageOf(t, []string{"a", "ours"}), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: runtime.GOARCH}}})
	ref, _ := name.ParseReference(h.host+"/multi:1", name.Insecure)
	if err := remote.WriteIndex(ref, index); err != nil {
		t.Fatal(err)
	}
	image := get(t, s, Request{Name: ref.Name()})
	if text(t, image, "a") != "ours" {
		t.Error(text(t, image, "a"))
	}
	h.requests()
	get(t, s, Request{Name: ref.Name()})
	if asked := h.requests(); count(asked, "/manifests/") != 1 {
		t.Errorf("a tag that did not move costs %q", asked)
	}
	foreign := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: imageOf(t, []string{"a", ""}), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: other}}})
	if err := remote.WriteIndex(ref, foreign); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Get(t.Context(), Request{Name: ref.Name()}); err == nil || !strings.Contains(err.Error(), "no image for linux/"+runtime.GOARCH) {
		t.Error(err)
	}
	single, _ := mutate.ConfigFile(imageOf(t), &v1.ConfigFile{OS: "linux", Architecture: other})
	if _, _, err := s.Get(t.Context(), Request{Name: h.push(t, "foreign", single)}); err == nil || !strings.Contains(err.Error(), "is for linux/"+other) {
		t.Error(err)
	}
}

func TestTenJobsPullAnImageOnce(t *testing.T) {
	h := newHub(t)
	s, told := storeOf(t, h)
	ref := h.push(t, "x", imageOf(t, []string{"a", "1"}, []string{"b", "2"}))
	image := imageOf(t, []string{"a", "1"}, []string{"b", "2"})
	layers, _ := image.Layers()
	digest, _ := layers[1].Digest()
	var ten sync.WaitGroup
	for range 10 {
		ten.Go(func() {
			image, release, err := s.Get(t.Context(), Request{Name: ref})
			if err != nil {
				t.Error(err)
				return
			}
			defer release()
			if text, err := os.ReadFile(filepath.Join(image.Path, "b")); string(text) != "2" {
				t.Error(err)
			}
		})
	}
	ten.Wait()
	lines := told.take()
	if n := count(h.requests(), digest.String()); n != 1 || strings.Count(lines, "Pulling ") != 1 || strings.Count(lines, "Waiting for another pull of ") > 9 {
		t.Errorf("a layer was fetched %d times: %s", n, lines)
	}
	wantTidy(t, s)
}

func TestAPullThatIsCancelledEndsWithinASecondAndLeavesNothing(t *testing.T) {
	h := newHub(t)
	s, told := storeOf(t, h)
	ref := h.push(t, "x", imageOf(t, []string{"a", "1"}, []string{"b", strings.Repeat("random", 1000)}))
	entered, done := make(chan struct{}, 10), make(chan struct{})
	defer close(done)
	h.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/blobs/") && len(told.take()) > 0 { // a layer, after "Pulling"
			w.Header().Set("Content-Length", "100000")
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			entered <- struct{}{}
			<-done
			return true
		}
		return false
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	failed := make(chan error)
	go func() {
		_, _, err := s.Get(ctx, Request{Name: ref})
		failed <- err
	}()
	<-entered
	began := time.Now()
	cancel(errors.New("stopped by a signal"))
	if err := <-failed; err == nil || !strings.Contains(err.Error(), "stopped by a signal") || time.Since(began) > 10*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
	wantTidy(t, s)
}

func TestAPullTellsHowFarItIs(t *testing.T) {
	firstLine = 50 * time.Millisecond
	defer func() { firstLine = 4 * time.Second }()
	h := newHub(t)
	s, told := storeOf(t, h)
	ref := h.push(t, "x", imageOf(t, []string{"a", "1"}))
	h.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == "GET" && strings.Contains(r.URL.Path, "/blobs/") && strings.Contains(told.peek(), "Pulling") {
			for r.Context().Err() == nil && strings.Count(told.peek(), "(0 of 1 MiB)") < 2 {
				time.Sleep(time.Millisecond)
			}
		}
		return false
	})
	get(t, s, Request{Name: ref})
	if lines := told.take(); strings.Count(lines, "\n") > 20 {
		t.Error(lines)
	}
}

func TestThePolicyOfAJobSaysWhenTheRegistryIsAsked(t *testing.T) {
	h := newHub(t)
	s, told := storeOf(t, h)
	ref := h.push(t, "x", imageOf(t, []string{"a", "1"}))
	try := func(policies ...Policy) (string, error) {
		image, release, err := s.Get(t.Context(), Request{Name: ref, Policies: policies})
		if err != nil {
			return "", err
		}
		release()
		return text(t, image, "a"), nil
	}
	if _, err := try(Never); err == nil || !strings.Contains(err.Error(), "never") || len(h.requests()) > 0 {
		t.Error(err)
	}
	if _, err := try("sometimes\x1b"); err == nil || !strings.Contains(err.Error(), "always, if-not-present and never") || strings.Contains(err.Error(), "\x1b") {
		t.Error(err)
	}
	if got, err := try(IfNotPresent); got != "1" {
		t.Error(err)
	}
	h.push(t, "x", imageOf(t, []string{"a", "2"}))
	for _, policy := range []Policy{IfNotPresent, Never} {
		if got, err := try(policy); got != "1" || len(h.requests()) > 0 {
			t.Error(policy, got, err)
		}
	}
	if got, err := try(Always); got != "2" {
		t.Error(got, err)
	}
	told.take()
	h.intercept(func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(503); return true })
	if _, err := try(Always); err == nil || !strings.Contains(err.Error(), "503") {
		t.Error(err)
	}
	if got, err := try(Always, IfNotPresent); got != "2" || !strings.Contains(told.take(), "the next pull_policy is if-not-present") {
		t.Error(got, err)
	}
	if got, err := try(); got != "2" || !strings.Contains(told.take(), "the image that is on this host is used") {
		t.Error(got, err)
	}
	h.Close()
	if got, err := try(); got != "2" || !strings.Contains(told.take(), "connection refused") {
		t.Error(got, err)
	}
}

func TestMirrorAndDefaultRegistryAreAskedInPlaceOfTheDefault(t *testing.T) {
	h := newHub(t)
	s, _ := storeOf(t, h)
	h.push(t, "library/postgres:16", imageOf(t, []string{"a", "mirror"}))
	h.push(t, "postgres:16", imageOf(t, []string{"a", "ours"}))
	s.Rules.Mirror = h.host
	if got := text(t, get(t, s, Request{Name: "postgres:16", Credentials: Keychain{{Server: name.DefaultRegistry, Username: "u", Password: "p"}}}), "a"); got != "mirror" {
		t.Error(got)
	}
	h.push(t, "proxy/cache/library/postgres:16", imageOf(t, []string{"a", "below a path"}))
	s.Rules.Mirror = h.host + "/proxy/cache"
	if got := text(t, get(t, s, Request{Name: "postgres:16"}), "a"); got != "below a path" {
		t.Error(got)
	}
	s.Rules.Mirror, s.Rules.Registry = "", h.host
	if got := text(t, get(t, s, Request{Name: "postgres:16"}), "a"); got != "ours" {
		t.Error(got)
	}
}

func TestWhatIsNoImageIsRefused(t *testing.T) {
	h := newHub(t)
	s, _ := storeOf(t, h)
	chart := mutate.ConfigMediaType(imageOf(t, []string{"a", ""}), "application/vnd.example\x1b+json")
	strange, _ := mutate.Append(imageOf(t), mutate.Addendum{Layer: layerOf(t, "a", ""), MediaType: "application/x"})
	many := slices.Repeat([]mutate.Addendum{{Layer: layerOf(t, "a", "")}}, maxLayers+1)
	deep, _ := mutate.Append(imageOf(t), many...)
	short, _ := mutate.ConfigFile(imageOf(t, []string{"a", ""}), &v1.ConfigFile{})
	for to, test := range map[string]struct {
		image v1.Image
		says  string
	}{
		"chart":   {chart, "not an image that can be started"},
		"strange": {strange, "is not known"},
		"deep":    {deep, "513 layers"},
		"short":   {short, "its configuration names 0"},
	} {
		_, _, err := s.Get(t.Context(), Request{Name: h.push(t, to, test.image)})
		if err == nil || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%s: %v", to, err)
		}
	}
	wantTidy(t, s)
}

func TestALayerThatBreaksOffIsFetchedAgain(t *testing.T) {
	h := newHub(t)
	s, told := storeOf(t, h)
	ref := h.push(t, "x", imageOf(t, []string{"a", "1"}))
	broken := 0
	h.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != "GET" || !strings.Contains(r.URL.Path, "/blobs/") || !strings.Contains(told.peek(), "Pulling") || broken == 2 {
			return false
		}
		broken++
		w.Header().Set("Content-Length", "1000000")
		_, _ = io.WriteString(w, "the beginning")
		panic(http.ErrAbortHandler)
	})
	if _, _, err := s.Get(t.Context(), Request{Name: ref}); err != nil || broken != 2 {
		t.Errorf("%d times: %v", broken, err)
	}
	wantTidy(t, s)
}

func TestWhoWaitsForAnotherPullCanBeCancelled(t *testing.T) {
	h := newHub(t)
	s, told := storeOf(t, h)
	image := imageOf(t, []string{"a", "1"})
	ref := h.push(t, "x", image)
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	other, err := lock.File(t.Context(), s.unfinished(digest.String(), h.host+"/x")+".lock", lock.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, _, err := s.Get(ctx, Request{Name: ref})
		failed <- err
	}()
	for !strings.Contains(told.peek(), "Waiting for another pull of "+ref) {
		time.Sleep(time.Millisecond)
	}
	began := time.Now()
	cancel(errors.New("stopped by a signal"))
	if err := <-failed; err == nil || !strings.Contains(err.Error(), "stopped by a signal") || time.Since(began) > 10*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}

func TestOnlyFailuresOfTheMomentAreWorthAnotherTry(t *testing.T) {
	h := newHub(t)
	s, _ := storeOf(t, h)
	ref := h.push(t, "x", imageOf(t, []string{"../a", "1"}))
	try := func(what string, r Request, again bool) {
		t.Helper()
		if _, _, err := s.Get(t.Context(), r); err == nil || WouldFailAgain(err) != again {
			t.Errorf("%s: %v", what, err)
		}
	}
	try("a hostile image", Request{Name: ref}, true)
	try("no image", Request{Name: h.host + "/none"}, true)
	s.Rules.Images = nil
	try("what is not allowed", Request{Name: ref}, true)
	s.Rules.Images = []string{"*"}
	s.MinFree = 1 << 62
	try("a full disk", Request{Name: ref}, false)
	s.MinFree = 0
	h.intercept(func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(502); return true })
	try("a registry with troubles", Request{Name: ref}, false)
	h.Close()
	try("no registry", Request{Name: ref}, false)
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) {
	return 0, &fs.PathError{Op: "write", Path: "layer", Err: syscall.ENOSPC}
}

func TestALayerThatCannotBeKeptIsNotTheRegistrysFailure(t *testing.T) {
	h := newHub(t)
	s, _ := storeOf(t, h)
	ref, err := s.Rules.parse(h.push(t, "x", imageOf(t, []string{"a", "1"})))
	if err != nil {
		t.Fatal(err)
	}
	r, err := ask(s.Rules, ref, nil, s.Environment)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	o, err := r.offer(t.Context(), s.ImageMax)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.fetch(t.Context(), o.layers[0], fullDisk{}); WouldFailAgain(err) || strings.Contains(err.Error(), "registry") {
		t.Errorf("%v", err)
	}
}

func TestARepositoryThatNeverEndsKeepsNobodyFromTheSameImageOfAnother(t *testing.T) {
	good, slow := newHub(t), newHub(t)
	s, told := storeOf(t, good, slow)
	image := imageOf(t, []string{"a", "1"}, []string{"b", "2"})
	ref, same := good.push(t, "x", image), slow.push(t, "x", image)
	layers, _ := image.Layers()
	digest, _ := layers[1].Digest()
	entered, done := make(chan struct{}), make(chan struct{})
	slow.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == "GET" && strings.Contains(r.URL.Path, digest.String()) {
			close(entered)
			<-done
		}
		return false
	})
	ended := make(chan error, 1)
	go func() {
		_, release, err := s.Get(t.Context(), Request{Name: same})
		if err == nil {
			release()
		}
		ended <- err
	}()
	<-entered
	if got := get(t, s, Request{Name: ref}); text(t, got, "b") != "2" {
		t.Error("it is another image")
	}
	close(done)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if images, err := s.List(); err != nil || len(images) != 1 || len(images[0].References) != 2 {
		t.Errorf("%+v, %v", images, err)
	}
	if lines := told.take(); strings.Count(lines, "Pulling ") != 2 {
		t.Error(lines)
	}
	wantTidy(t, s)
}
