package oci

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// private has a registry ask for user and password.
func (h *hub) private(user, password string) {
	h.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if u, p, _ := r.BasicAuth(); u == user && p == password {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"you sent `+r.Header.Get("Authorization")+`"}]}`)
		return true
	})
}

func TestAPrivateImageIsGivenOutOnlyToWhomTheRegistryGivesIt(t *testing.T) {
	h := newHub(t)
	s, _ := storeOf(t, h)
	ref := h.push(t, "secret/x:1", imageOf(t, []string{"a", "1"}))
	h.private("user", "pass")
	ours := Keychain{{Server: h.host + "/secret", Username: "user", Password: "pass"}}
	image := get(t, s, Request{Name: ref, Credentials: ours})
	for _, name := range []string{ref, h.host + "/secret/x@" + image.Digest} {
		for _, keys := range []Keychain{nil, {{Server: h.host, Username: "user", Password: "s3cret"}}, {{Server: h.host + "/other", Username: "user", Password: "pass"}}} {
			for _, policies := range [][]Policy{nil, {Always}, {IfNotPresent}, {Never}, {Always, IfNotPresent, Never}} {
				_, _, err := s.Get(t.Context(), Request{Name: name, Policies: policies, Credentials: keys})
				if err == nil || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "dXNlc") {
					t.Errorf("%s %v %v: %v", name, keys, policies, err)
				}
			}
		}
	}
	for _, policies := range [][]Policy{nil, {Always}, {IfNotPresent}, {Never}} {
		get(t, s, Request{Name: ref, Policies: policies, Credentials: ours})
	}
	// Without its registry nobody knows who may have it.
	h.Close()
	if _, _, err := s.Get(t.Context(), Request{Name: ref, Credentials: ours, Policies: []Policy{IfNotPresent}}); err == nil {
		t.Error("given out without asking")
	}
}

func TestWhoKnowsAManifestDoesNotGetLayersOfAnother(t *testing.T) {
	theirs, evil := newHub(t), newHub(t)
	s, _ := storeOf(t, theirs, evil)
	image := imageOf(t, []string{"a", "secret"})
	ref := theirs.push(t, "secret/x", image)
	theirs.private("user", "pass")
	get(t, s, Request{Name: ref, Credentials: Keychain{{Server: theirs.host, Username: "user", Password: "pass"}}})
	// The attacker has the manifest and the configuration, not the layer.
	copied := evil.push(t, "mine", image)
	layers, _ := image.Layers()
	digest, _ := layers[0].Digest()
	evil.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == "GET" && strings.Contains(r.URL.Path, digest.String()) {
			_, _ = io.WriteString(w, "something else")
			return true
		}
		return false
	})
	if _, _, err := s.Get(t.Context(), Request{Name: copied}); err == nil {
		t.Error("the tree was given out")
	}
	evil.intercept(nil)
	if got := get(t, s, Request{Name: copied}); text(t, got, "a") != "secret" {
		t.Error("who has all layers gets it")
	}
	wantTidy(t, s)
}

// Who may have what a tag means now need not be who may have what it meant before.
func TestAnImageOfBeforeIsGivenOutOnlyToWhomTheRegistryGivesThatOne(t *testing.T) {
	h := newHub(t)
	s, _ := storeOf(t, h)
	ref := h.push(t, "x:1", imageOf(t, []string{"a", "secret"}))
	ours := Keychain{{Server: h.host, Username: "user", Password: "pass"}}
	old := get(t, s, Request{Name: ref, Credentials: ours})
	h.push(t, "x:1", imageOf(t, []string{"a", "open"}))
	h.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		_, _, has := r.BasicAuth()
		if has || !strings.HasSuffix(r.URL.Path, "/manifests/"+old.Digest) {
			return false
		}
		w.WriteHeader(http.StatusForbidden)
		return true
	})
	if _, _, err := s.Get(t.Context(), Request{Name: ref, Policies: []Policy{Never}}); err == nil {
		t.Error("given out without asking")
	}
	if image := get(t, s, Request{Name: ref, Policies: []Policy{IfNotPresent}}); text(t, image, "a") != "open" {
		t.Error("given out to somebody else")
	}
}

func TestAnImageIsPublicOnceItWasGivenOutWithoutCredentials(t *testing.T) {
	h := newHub(t)
	s, _ := storeOf(t, h)
	refs := []string{h.push(t, "x", imageOf(t, []string{"a", "1"})), h.push(t, "y", imageOf(t, []string{"a", "2"}))}
	for i, policies := range [][]Policy{nil, {IfNotPresent}} {
		get(t, s, Request{Name: refs[i], Credentials: Keychain{{Server: h.host, Username: "user", Password: "pass"}}})
		get(t, s, Request{Name: refs[i], Policies: policies})
	}
	h.Close()
	for _, ref := range refs {
		get(t, s, Request{Name: ref})
	}
}

func TestATagThatIsPulledAnewWhileAnOldImageOfItIsGivenOutMeansTheNewOne(t *testing.T) {
	h := newHub(t)
	s, _ := storeOf(t, h)
	ref, moved := h.push(t, "x", imageOf(t, []string{"a", "old"})), false
	withPassword := Request{Name: ref, Credentials: Keychain{{Server: h.host, Username: "user", Password: "pass"}}}
	get(t, s, withPassword)
	h.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodHead && !moved {
			moved = true
			h.push(t, "x", imageOf(t, []string{"a", "new"}))
			get(t, s, withPassword)
		}
		return false
	})
	get(t, s, Request{Name: ref, Policies: []Policy{IfNotPresent}})
	withPassword.Policies = []Policy{IfNotPresent}
	if got := text(t, get(t, s, withPassword), "a"); got != "new" || !moved {
		t.Errorf("the tag means the %s one", got)
	}
}

func TestAnImageThatIsRemovedWhileAnotherRegistryShowsItIsPulled(t *testing.T) {
	one, other := newHub(t), newHub(t)
	s, _ := storeOf(t, one, other)
	image := imageOf(t, []string{"a", "1"})
	get(t, s, Request{Name: one.push(t, "x", image), Credentials: Keychain{{Server: one.host, Username: "user", Password: "pass"}}})
	same := other.push(t, "y", image)
	layers, _ := image.Layers()
	digest, _ := layers[0].Digest()
	removed := 0
	other.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, digest.String()) && removed == 0 {
			pruned, err := s.Remove(t.Context(), one.host+"/x")
			if removed = len(pruned.Removed); err != nil {
				t.Error(err)
			}
		}
		return false
	})
	if got := get(t, s, Request{Name: same}); text(t, got, "a") != "1" || removed != 1 {
		t.Errorf("%d removed", removed)
	}
	wantTidy(t, s)
}

func TestARegistryWithAServerForTokensIsAsked(t *testing.T) {
	h := newHub(t)
	s, _ := storeOf(t, h)
	ref := h.push(t, "team/x", imageOf(t, []string{"a", "1"}))
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "user" || password != "pass" || r.URL.Query().Get("scope") != "repository:team/x:pull" || r.URL.Query().Get("service") != "registry" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, `{"token": "granted"}`)
	}))
	defer tokens.Close()
	// Another host than the registry, as it often is.
	at := "localhost" + tokens.URL[strings.LastIndexByte(tokens.URL, ':'):]
	h.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == "Bearer granted" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+at+`/token",service="registry",scope="repository:team/x:pull"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	request := Request{Name: ref, Credentials: Keychain{{Server: h.host, Username: "user", Password: "pass"}}}
	if _, _, err := s.Get(t.Context(), request); err == nil {
		t.Error("a server for tokens without TLS that nobody names")
	}
	s.Rules.Insecure = append(s.Rules.Insecure, at)
	if image := get(t, s, request); text(t, image, "a") != "1" {
		t.Error("it is another image")
	}
	request.Credentials[0].Password = "s3cret"
	if _, _, err := s.Get(t.Context(), request); err == nil || !strings.Contains(err.Error(), "401") || strings.Contains(err.Error(), "s3cret") {
		t.Error(err)
	}
}
