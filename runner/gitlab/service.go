package gitlab

import (
	"encoding/json"
	"maps"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// Service is a service that a job asks for. All of it is text of the job's choice.
type Service struct {
	// Name is the reference of its image, as the job writes it.
	Name string
	// Aliases are the host names under which the job wants to reach it. Unfit are those that
	// no host can have.
	Aliases, Unfit []string
	// Entrypoint and Command replace what the image executes; nil where the job gives none.
	Entrypoint, Command []string
	// User is who executes its program in place of the image's user, as in "postgres" and "70:70";
	// "" where the job says nothing.
	User string
	// PullPolicy is when its registry is asked for it, none for the default: the policies are
	// tried one after the other.
	PullPolicy []string
	// Environment are the variables that it sees: the job's public ones, then its own.
	Environment map[string]string
}

// MostServices is how many services of a job are read: no host starts more. Of the others there
// is the name only. Each service has a copy of the job's variables, so thousands of both would
// take all memory of the host.
const MostServices = 64

// maxAliases bounds the names of one service: each is two lines of /etc/hosts.
const maxAliases = 32

// newService is a service with the names that gitlab-runner's docker executor gives it: that
// of the image without the port of its registry and without its tag, with __ for each slash
// and with - for it, and then the job's own aliases.
func newService(s service) Service {
	made := Service{Name: s.Name, Entrypoint: s.Entrypoint, Command: s.Command, PullPolicy: s.PullPolicy, User: s.dockerUser()}
	base := withoutTag(s.Name)
	names := []string{strings.ReplaceAll(base, "/", "__"), strings.ReplaceAll(base, "/", "-")}
	separates := func(c rune) bool { return c == ',' || unicode.IsSpace(c) }
	for _, name := range append(names, strings.FieldsFunc(s.Alias, separates)...) {
		same := func(other string) bool { return strings.EqualFold(other, name) }
		switch {
		case slices.ContainsFunc(made.Aliases, same) || slices.Contains(made.Unfit, name):
		case isHostName(name) && len(made.Aliases) < maxAliases:
			made.Aliases = append(made.Aliases, name)
		case len(made.Unfit) < maxAliases:
			made.Unfit = append(made.Unfit, name)
		}
	}
	return made
}

// withoutTag is the reference of an image without digest, tag and port of the registry.
func withoutTag(reference string) string {
	reference, _, _ = strings.Cut(reference, "@")
	slash := strings.LastIndexByte(reference, '/')
	last, _, _ := strings.Cut(reference[slash+1:], ":")
	if slash < 0 {
		return last
	}
	registry, path, deeper := strings.Cut(reference[:slash], "/")
	registry, _, _ = strings.Cut(registry, ":")
	if deeper {
		registry += "/" + path
	}
	return registry + "/" + last
}

// Tagged is the reference of an image with the tag that it has without one.
func Tagged(reference string) string {
	last := reference[strings.LastIndexByte(reference, '/')+1:]
	if reference == "" || strings.ContainsAny(last, ":@") {
		return reference
	}
	return reference + ":latest"
}

var (
	// hostName is what stands in an /etc/hosts. Underscores, which host names should not
	// have, are usual in names of services.
	hostName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$`)
	// address is what inet_aton(3) takes for one, which programs then do not look up.
	address = regexp.MustCompile(`^(0[xX][0-9A-Fa-f]*|[0-9]+)(\.(0[xX][0-9A-Fa-f]*|[0-9]+))*$`)
)

// isHostName says whether programs look a name up in /etc/hosts.
func isHostName(name string) bool {
	_, err := netip.ParseAddr(name)
	return len(name) <= 253 && hostName.MatchString(name) && !strings.Contains(name, "..") && err != nil && !address.MatchString(name)
}

// service is one in gitlab-runner's JSON. In CI_JOB_SERVICES its variables are an object,
// with all references in them replaced; gitlab-runners before 19 leave them out. In the
// response they are a list, as GitLab sends them.
type service struct {
	Name       string          `json:"name"`
	Alias      string          `json:"alias"`
	Entrypoint []string        `json:"entrypoint"`
	Command    []string        `json:"command"`
	PullPolicy policies        `json:"pull_policy"`
	Options    json.RawMessage `json:"executor_opts"`
	Variables  json.RawMessage `json:"variables"`
}

// dockerUser is the user that the job sets for the docker executor.
func (s service) dockerUser() string {
	var options struct {
		Docker struct {
			User string `json:"user"`
		} `json:"docker"`
	}
	if json.Unmarshal(s.Options, &options) != nil {
		return ""
	}
	return options.Docker.User
}

// policies are words: one, or a list.
type policies []string

// UnmarshalJSON takes what it can read. Another type does not fail the job.
func (p *policies) UnmarshalJSON(text []byte) error {
	var one string
	if json.Unmarshal(text, &one) == nil {
		if one != "" {
			*p = policies{one}
		}
		return nil
	}
	_ = json.Unmarshal(text, (*[]string)(p))
	return nil
}

// variable is one in the response.
type variable struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	Public bool   `json:"public"`
	File   bool   `json:"file"`
	Raw    bool   `json:"raw"`
}

// servicesFromVariable reads CI_JOB_SERVICES. What cannot be read counts as none.
func servicesFromVariable(value string) []service {
	var services []service
	if json.Unmarshal([]byte(value), &services) != nil {
		return nil
	}
	return services
}

// servicesOf are the services of a job. sent are those in the response, with the job's
// variables; known are those of CI_JOB_SERVICES, which stands behind all variables of the
// job's in the environment.
func servicesOf(sent, known []service, variables []variable, env Env) (all []Service) {
	public := publicOf(variables, env)
	for i, s := range sent {
		if s.Name == "" {
			continue
		}
		if len(all) >= MostServices {
			all = append(all, Service{Name: s.Name})
			continue
		}
		made := newService(s)
		made.Environment = maps.Clone(public)
		var own map[string]string
		if i < len(known) && known[i].Name == s.Name && json.Unmarshal(known[i].Variables, &own) == nil && own != nil {
			for name, value := range own {
				setIn(made.Environment, name, value)
			}
		} else {
			setExpanded(made.Environment, s.Variables, env)
		}
		all = append(all, made)
	}
	return all
}

// publicOf are the job's variables that may be shown to its services: those that are not
// secret, as the environment has them, where references in them are replaced.
func publicOf(variables []variable, env Env) map[string]string {
	public := map[string]string{}
	for _, v := range variables { // of two with one name, the last one counts
		delete(public, v.Key)
		if v.Public && !v.File {
			setIn(public, v.Key, env("CUSTOM_ENV_"+v.Key))
		}
	}
	return public
}

// maxExpanded bounds what references in the variables of one service become, in bytes: a short
// text may have thousands of references to a long value.
const maxExpanded = 1 << 20

// setExpanded sets the variables of a service that the response has, with references to the
// job's and to those before them replaced, up to maxExpanded.
func setExpanded(all map[string]string, list json.RawMessage, env Env) {
	var own []variable
	if json.Unmarshal(list, &own) != nil {
		return
	}
	left := maxExpanded
	for _, v := range own {
		if !v.Raw {
			room := maxVariable
			v.Value = os.Expand(v.Value, func(name string) string {
				value, is := all[name]
				switch {
				case name == "$":
					return "$"
				case !is:
					value = env("CUSTOM_ENV_" + name)
				}
				if room -= len(value); room < 0 {
					return ""
				}
				return value
			})
			if left -= len(v.Value); left < 0 {
				return
			}
		}
		setIn(all, v.Key, v.Value)
	}
}

// setIn sets a variable, and leaves out one that a program cannot be given.
func setIn(all map[string]string, name, value string) {
	if CheckVariable(name, value) == nil {
		all[name] = value
	}
}
