package gitlab

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestAServiceHasTheNamesThatDockerGivesIt(t *testing.T) {
	for _, test := range []struct{ name, alias, aliases, unfit string }{
		{"postgres", "", "postgres", ""},
		{"postgres:16", "db", "postgres db", ""},
		{"tutum/wordpress:latest", "", "tutum__wordpress tutum-wordpress", ""},
		{"registry.example.org:5000/team/api:1.2", "api, backend web", "registry.example.org__team__api registry.example.org-team-api api backend web", ""},
		{"registry.example.org/team/api@sha256:0123", "api,,api,API", "registry.example.org__team__api registry.example.org-team-api api", ""},
		{"redis:7@sha256:0123", "localhost", "redis localhost", ""},
		{"redis", "-x x- a..b 127.0.0.1 ::1 7 0x7f 1.2 evil\x1b[31m host\x00 ../../etc ok", "redis ok", "-x x- a..b 127.0.0.1 ::1 7 0x7f 1.2 evil\x1b[31m host\x00 ../../etc"},
		{"Ünï/code:1", "", "", "Ünï__code Ünï-code"},
		{"", "a", "a", ""},
	} {
		s := newService(service{Name: test.name, Alias: test.alias})
		unfit := slices.DeleteFunc(s.Unfit, func(name string) bool { return name == "" })
		if !slices.Equal(s.Aliases, strings.Fields(test.aliases)) || !slices.Equal(unfit, strings.Fields(test.unfit)) {
			t.Errorf("%q, alias %q: %q, unfit %q", test.name, test.alias, s.Aliases, s.Unfit)
		}
	}
	var names strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&names, "n%d,", i)
	}
	many := newService(service{Name: "x", Alias: names.String()})
	if len(many.Aliases) > maxAliases {
		t.Errorf("%d names", len(many.Aliases))
	}
}

func TestTheTagOfAReferenceWithoutOneIsLatest(t *testing.T) {
	for reference, want := range map[string]string{
		"postgres": "postgres:latest", "postgres:16": "postgres:16", "a.example:5000/b": "a.example:5000/b:latest",
		"b@sha256:00": "b@sha256:00", "": "",
	} {
		if got := Tagged(reference); got != want {
			t.Errorf("%q: %q", reference, got)
		}
	}
}

const withServices = `{"id":42,"token":"secret","image":{"name":"sid"},"variables":[
{"key":"POSTGRES_DB","value":"$NAME","public":true},{"key":"SECRET","value":"s","public":false},{"key":"KEY","value":"k","public":true,"file":true},
{"key":"PASSWORD","value":"shown","public":true},{"key":"PASSWORD","value":"hidden","public":false},{"key":"a b","value":"x","public":true}],
"services":[{"name":"postgres:16","alias":"db","pull_policy":["always","if-not-present"],"command":["-c","x y"],"entrypoint":["/bin/e"],"executor_opts":{"docker":{"user":"70:71"}},
"variables":[{"key":"POSTGRES_USER","value":"$SECRET-$POSTGRES_DB-$$"},{"key":"RAW","value":"$RAW","raw":true}]},{"name":""},{"name":"redis","executor_opts":{"docker":7}}]}`

func TestAServiceSeesTheJobsPublicVariablesAndItsOwn(t *testing.T) {
	pairs := []string{"CUSTOM_ENV_POSTGRES_DB", "shop", "CUSTOM_ENV_SECRET", "s", "CUSTOM_ENV_KEY", "/path", "CUSTOM_ENV_PASSWORD", "hidden"}
	read := func(more ...string) []Service {
		t.Helper()
		all := append([]string{"JOB_RESPONSE_FILE", responseFile(t, withServices)}, append(pairs, more...)...)
		job, err := FromEnvironment(env(all...), "", "")
		if err != nil || len(job.Services) != 2 || job.Services[0].Name != "postgres:16" || job.Services[1].Name != "redis" {
			t.Fatalf("%+v, %v", job, err)
		}
		return job.Services
	}
	services := read()
	if s := services[0]; !slices.Equal(s.Command, []string{"-c", "x y"}) || !slices.Equal(s.Entrypoint, []string{"/bin/e"}) || !slices.Equal(s.Aliases, []string{"postgres", "db"}) || !slices.Equal(s.PullPolicy, []string{"always", "if-not-present"}) {
		t.Errorf("%+v", s)
	}
	if services[0].User != "70:71" || services[1].User != "" {
		t.Errorf("%q, %q", services[0].User, services[1].User)
	}
	if got := services[0].Environment; !maps.Equal(got, map[string]string{"POSTGRES_DB": "shop", "POSTGRES_USER": "s-shop-$", "RAW": "$RAW"}) {
		t.Errorf("before gitlab-runner 19: %q", got)
	}
	if got := services[1].Environment; !maps.Equal(got, map[string]string{"POSTGRES_DB": "shop"}) {
		t.Errorf("another service: %q", got)
	}
	services = read("CUSTOM_ENV_CI_JOB_SERVICES", `[{"name":"postgres:16","variables":{"POSTGRES_USER":"u","PPID":"1","x":"a\u0000b"}},{"name":""},{"name":"redis","variables":{}}]`)
	if got := services[0].Environment; !maps.Equal(got, map[string]string{"POSTGRES_DB": "shop", "POSTGRES_USER": "u"}) {
		t.Errorf("since gitlab-runner 19: %q", got)
	}
}

func TestAShortValueWithManyReferencesStaysShort(t *testing.T) {
	long := strings.Repeat("x", 60<<10)
	all := map[string]string{}
	setExpanded(all, []byte(`[{"key":"A","value":"`+strings.Repeat("$LONG", 10000)+`"}]`), env("CUSTOM_ENV_LONG", long))
	if len(all["A"]) > maxVariable {
		t.Errorf("%d bytes", len(all["A"]))
	}
}

func TestThousandsOfServicesDoNotMultiplyThousandsOfVariables(t *testing.T) {
	var variables, services []map[string]any
	for i := range 2000 {
		variables = append(variables, map[string]any{"key": fmt.Sprint("V", i), "public": true})
		services = append(services, map[string]any{"name": fmt.Sprint("s", i)})
	}
	response, err := json.Marshal(map[string]any{"id": 1, "variables": variables, "services": services})
	if err != nil {
		t.Fatal(err)
	}
	job, err := parseResponse(response, func(string) string { return "value" })
	if err != nil {
		t.Fatal(err)
	}
	held := 0
	for _, service := range job.Services {
		held += len(service.Environment)
	}
	if len(job.Services) != 2000 || held != MostServices*2000 {
		t.Errorf("%d services hold %d variables", len(job.Services), held)
	}
}

func TestReferencesInVariablesOfAServiceDoNotGrowWithoutEnd(t *testing.T) {
	var own []map[string]any
	for i := range 1000 {
		own = append(own, map[string]any{"key": fmt.Sprint("V", i), "value": "$BIG"})
	}
	response, err := json.Marshal(map[string]any{"id": 1, "services": []any{map[string]any{"name": "s", "variables": own}}})
	if err != nil {
		t.Fatal(err)
	}
	job, err := parseResponse(response, func(name string) string {
		if name == "CUSTOM_ENV_BIG" {
			return strings.Repeat("x", 60_000)
		}
		return ""
	})
	if err != nil {
		t.Fatal(err)
	}
	held := 0
	for _, value := range job.Services[0].Environment {
		held += len(value)
	}
	if held < 60_000 || held > maxExpanded {
		t.Errorf("they hold %d bytes", held)
	}
}
