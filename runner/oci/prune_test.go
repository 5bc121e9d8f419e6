package oci

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"golang.org/x/sys/unix"
)

// aged has images pulled and used at different times: the last name was used last.
func aged(t *testing.T, s *Store, h *hub, names ...string) (images []Image) {
	t.Helper()
	for i, name := range names {
		image := get(t, s, Request{Name: h.push(t, name, imageOf(t, []string{"a", name}))})
		at := time.Now().Add(time.Duration(i-len(names)) * time.Minute)
		if err := os.Chtimes(filepath.Join(s.path(image.Digest), "used"), at, at); err != nil {
			t.Fatal(err)
		}
		images = append(images, image)
	}
	return images
}

func digests(images []Image) (all []string) {
	for _, i := range images {
		all = append(all, i.Digest)
	}
	return all
}

func TestWhatWasUnusedForTheLongestTimeGoesFirstAndWhatIsUsedStays(t *testing.T) {
	h := newHub(t)
	s, _ := storeOf(t, h)
	images := aged(t, s, h, "a", "b", "c", "d")
	s.InUse = func(digest string) bool { return digest == images[0].Digest }
	s.CacheMax = images[0].Size * 2
	excess, err := s.excess("")
	if err != nil {
		t.Fatal(err)
	}
	pruned, err := s.removeAll(t.Context(), excess)
	if err != nil || !slices.Equal(digests(pruned.Removed), digests(images[1:2])) || !slices.Equal(digests(pruned.InUse), digests(images[:1])) {
		t.Errorf("%+v, %v", pruned, err)
	}
	if left, err := s.List(); err != nil || len(left) != 3 {
		t.Errorf("%+v, %v", left, err)
	}
	// A pull makes room for itself, and stays in any case.
	s.CacheMax = 1
	last := get(t, s, Request{Name: h.push(t, "e", imageOf(t, []string{"a", "e"}))})
	left, err := s.List()
	if err != nil || !slices.Equal(digests(left), digests([]Image{images[0], last})) {
		t.Errorf("%v, %v", digests(left), err)
	}
	_ = os.RemoveAll(s.Trash) // the next job empties it
	wantTidy(t, s)
}

func TestANameThatMeansAnotherImageByNowStays(t *testing.T) {
	h := newHub(t)
	s, _ := storeOf(t, h)
	ref := h.push(t, "x", imageOf(t, []string{"a", "1"}))
	get(t, s, Request{Name: ref})
	listed, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	h.push(t, "x", imageOf(t, []string{"a", "2"}))
	get(t, s, Request{Name: ref})
	if _, err := s.removeAll(t.Context(), listed); err != nil {
		t.Error(err)
	}
	if images, err := s.List(); err != nil || len(images) != 1 || !slices.Equal(images[0].References, []string{ref}) {
		t.Errorf("%+v, %v", images, err)
	}
}

func TestAnImageThatIsHeldIsNotRemoved(t *testing.T) {
	h := newHub(t)
	s, _ := storeOf(t, h)
	ref := h.push(t, "a", imageOf(t, []string{"a", "1"}))
	image, release, err := s.Get(t.Context(), Request{Name: ref})
	if err != nil {
		t.Fatal(err)
	}
	if pruned, err := s.Remove(t.Context(), ref); err != nil || len(pruned.InUse) != 1 || len(pruned.Removed) != 0 {
		t.Errorf("%+v, %v", pruned, err)
	}
	if text(t, image, "a") != "1" {
		t.Error("it is gone")
	}
	release()
	for _, unknown := range []string{"", "sha256:", image.Digest[:len("sha256:")+4], h.host + "/b", "\x1b"} {
		if _, err := s.Remove(t.Context(), unknown); err == nil || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%q: %v", unknown, err)
		}
	}
	if pruned, err := s.Remove(t.Context(), image.Digest[:len("sha256:")+12]); err != nil || len(pruned.Removed) != 1 {
		t.Errorf("%+v, %v", pruned, err)
	}
	if left, err := s.List(); err != nil || len(left) > 0 {
		t.Errorf("%+v, %v", left, err)
	}
	wantTidy(t, s)
}

func TestAnImageThatIsRemovedWhileAJobStartsIsPulledAgain(t *testing.T) {
	h := newHub(t)
	s, _ := storeOf(t, h)
	ref := h.push(t, "a", imageOf(t, []string{"a", "1"}))
	image := get(t, s, Request{Name: ref})
	once := true
	h.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == "HEAD" && once { // the job has seen that it is here
			once = false
			if _, err := s.Remove(t.Context(), image.Digest); err != nil {
				t.Error(err)
			}
		}
		return false
	})
	if again := get(t, s, Request{Name: ref}); text(t, again, "a") != "1" {
		t.Error("it is another one")
	}
}

func TestGarbageAreImagesWithoutANameAndNamesWithoutAnImage(t *testing.T) {
	h := newHub(t)
	s, _ := storeOf(t, h)
	old := get(t, s, Request{Name: h.push(t, "a", imageOf(t, []string{"a", "1"}))})
	get(t, s, Request{Name: h.push(t, "a", imageOf(t, []string{"a", "2"}))})
	gone := get(t, s, Request{Name: h.push(t, "b", imageOf(t, []string{"a", "3"}))})
	if all, err := s.Leftovers(); err != nil || len(all) > 0 {
		t.Errorf("at once: %+v, %v", all, err)
	}
	if err := os.RemoveAll(s.path(gone.Digest)); err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-2 * nameless)
	unwritten := filepath.Join(s.names(), ".x.json1")
	if err := os.WriteFile(unwritten, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(s.path(old.Digest), "used"), unwritten} {
		if err := os.Chtimes(path, long, long); err != nil {
			t.Fatal(err)
		}
	}
	all, err := s.Leftovers()
	if err != nil || len(all) != 3 {
		t.Fatalf("%+v, %v", all, err)
	}
	for _, l := range all {
		if err := l.Remove(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if all, err := s.Leftovers(); err != nil || len(all) > 0 {
		t.Errorf("afterwards: %+v, %v", all, err)
	}
	if left, err := s.List(); err != nil || len(left) != 1 {
		t.Errorf("%+v, %v", left, err)
	}
}

func TestAnImageThatIsAllConfigurationCountsToWhatIsKept(t *testing.T) {
	h := newHub(t)
	s, _ := storeOf(t, h)
	empty := imageOf(t)
	got := get(t, s, Request{Name: h.push(t, "empty", empty)})
	large, err := mutate.Config(empty, v1.Config{Env: []string{"A=" + strings.Repeat("x", 3<<20)}})
	if err != nil {
		t.Fatal(err)
	}
	if again := get(t, s, Request{Name: h.push(t, "large", large)}); got.Size < 1<<20 || again.Size < 4<<20 {
		t.Errorf("%d, %d bytes", got.Size, again.Size)
	}
}

// A job may give an image a new tag each time. The last names are known, and the image by them, and those that the
// administrator has listed.
func TestAnImageHasNoMoreNamesThanAreReadForEachJob(t *testing.T) {
	h := newHub(t)
	s, _ := storeOf(t, h)
	s.Rules.Images = []string{"*", h.host + "/a:1"}
	image := imageOf(t, []string{"a", "1"})
	var last Image
	for i := range mostNames + 3 {
		last = get(t, s, Request{Name: h.push(t, fmt.Sprintf("a:%d", i), image)})
	}
	if len(last.References) != mostNames+1 || !slices.Contains(last.References, h.host+fmt.Sprintf("/a:%d", mostNames+2)) ||
		!slices.Contains(last.References, h.host+"/a:1") || slices.Contains(last.References, h.host+"/a:0") {
		t.Errorf("%d names: %v", len(last.References), last.References)
	}
	if again := get(t, s, Request{Name: h.host + "/a:0"}); again.Digest != last.Digest || len(again.References) != mostNames+1 {
		t.Errorf("a forgotten name: %+v", again)
	}
}

func TestAMaintenanceRefreshesNamesAndNoPatterns(t *testing.T) {
	h := newHub(t)
	s, _ := storeOf(t, h)
	for _, tag := range []string{"1", "2"} {
		get(t, s, Request{Name: h.push(t, "a:"+tag, imageOf(t, []string{"a", tag}))})
	}
	get(t, s, Request{Name: h.push(t, "ab:1", imageOf(t, []string{"a", "ab"}))})
	s.Rules.Images = []string{h.host + "/a", h.host + "/a:1", h.host + "/b:1", h.host + "/c", h.host + "/*", "?:1"}
	names, err := s.Refreshable()
	if err != nil || !slices.Equal(names, []string{h.host + "/a:1", h.host + "/a:2", h.host + "/b:1"}) {
		t.Errorf("%q, %v", names, err)
	}
}

// countdown is a context that is cancelled when its end was asked for a number of times.
type countdown struct {
	context.Context
	left int
}

func (c *countdown) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

func TestAnImageThatCannotBeMovedAndWhoseRemovalIsCutShortIsWholeOrGone(t *testing.T) {
	h := newHub(t)
	ref := h.push(t, "x", imageOf(t, []string{"a", "1"}, []string{"b", "2"}))
	// The move fails, as it may on a full disk: the path in the trash is too long.
	long := t.TempDir()
	for len(long) < unix.PathMax-80 {
		long = filepath.Join(long, strings.Repeat("x", min(200, unix.PathMax-10-len(long))))
	}
	for names, cut := 0, true; cut; names++ {
		s, _ := storeOf(t, h)
		trash := s.Trash
		image := get(t, s, Request{Name: ref})
		s.Trash = long
		_, err := s.forgetOne(&countdown{context.Background(), names}, image)
		if cut = err != nil; names > 60 || !cut && names < 4 {
			t.Fatalf("%d names, %v", names, err)
		}
		s.Trash = trash
		if images, err := s.List(); err != nil || len(images) > 1 || len(images) == 1 && (text(t, images[0], "a") != "1" || text(t, images[0], "b") != "2") {
			t.Errorf("cut short after %d names: %v, %v", names, images, err)
		}
		if names%2 == 0 {
			leftovers, err := s.Leftovers()
			if err != nil {
				t.Error(err)
			}
			for _, l := range leftovers {
				if err := l.Remove(t.Context()); err != nil {
					t.Errorf("cut short after %d names: %s: %v", names, l.Path, err)
				}
			}
		} else if image := get(t, s, Request{Name: ref}); text(t, image, "b") != "2" {
			t.Errorf("cut short after %d names: the next job gets another image", names)
		}
		if leftovers, err := s.Leftovers(); err != nil || len(leftovers) > 0 {
			t.Errorf("cut short after %d names: left are %v, %v", names, leftovers, err)
		}
		wantTidy(t, s)
	}
}
