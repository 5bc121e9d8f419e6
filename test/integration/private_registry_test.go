package integration

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"nspawn-runner/test/gitlab"
)

func TestAServiceFromAClosedRegistryNeedsTheCredentialsOfItsJob(t *testing.T) {
	needLab(t)
	h := onHost(t, "overlay")
	r := startRegistry(t, true)
	h.forgets(t)
	h.configure(t, r.allow())
	ref := r.pushLayers(t, "team/static:1", exposing("8001"), programLayer(t))
	config := func(server, password string) []gitlab.Variable {
		auth := base64.StdEncoding.EncodeToString([]byte(registryUser + ":" + password))
		return []gitlab.Variable{{Key: "DOCKER_AUTH_CONFIG", Value: fmt.Sprintf(`{"auths": {"%s": {"auth": "%s"}}, "credHelpers": {"%s": "evil"}}`, server, auth, server), Masked: true}}
	}
	ours := []gitlab.Credential{{URL: r.host, Username: registryUser, Password: registryPassword}}
	play := func(variables []gitlab.Variable, credentials []gitlab.Credential, policies ...string) gitlab.Result {
		t.Helper()
		result := h.play(t, gitlab.Job{
			Variables: variables, Credentials: credentials, Script: []string{"exec 3<>/dev/tcp/127.0.0.1/8001"},
			Services: []gitlab.Image{{Name: ref, Alias: "static", PullPolicy: policies}},
		})
		if strings.Contains(result.Log, registryPassword+"\"") || strings.Contains(result.Log, base64.StdEncoding.EncodeToString([]byte(registryUser+":"+registryPassword))) {
			t.Errorf("the log has a secret: %s", result.Log)
		}
		return result
	}
	for i, accepted := range []struct {
		variables   []gitlab.Variable
		credentials []gitlab.Credential
	}{
		{config(r.host, registryPassword), nil},
		{nil, ours},
		{config("https://"+r.host+"/v2/", registryPassword), []gitlab.Credential{{URL: r.host, Username: registryUser, Password: "wrong"}}},
		{config(r.host, "wrong"), []gitlab.Credential{{URL: r.host + "/team", Username: registryUser, Password: registryPassword}}},
	} {
		if result := play(accepted.variables, accepted.credentials); result.Status != gitlab.Success {
			t.Errorf("%d: %s", i, result.Log)
		}
	}
	for _, policies := range [][]string{nil, {"if-not-present"}, {"never"}, {"always", "if-not-present"}} {
		for i, refused := range [][]gitlab.Variable{nil, config(r.host+"/team", "wrong"), config(r.host+"/other", registryPassword)} {
			credentials := ours
			if i != 1 { // there the longest path counts, which is wrong
				credentials = nil
			}
			result := play(refused, credentials, policies...)
			if result.Reason != gitlab.ScriptFailure {
				t.Errorf("%d %v: %s: %s", i, policies, result.Reason, result.Log)
			}
			wantLog(t, result.Log, "answers 401 Unauthorized: there is no such image, or it is not given out with")
		}
	}
	// Nobody can say who may have it.
	r.stop()
	result := play(nil, ours, "if-not-present")
	if result.Reason != gitlab.SystemFailure {
		t.Errorf("%s: %s", result.Reason, result.Log)
	}
	wantLog(t, result.Log, "connection refused")
}
