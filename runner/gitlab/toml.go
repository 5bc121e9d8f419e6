package gitlab

import (
	"fmt"
	"slices"
	"strings"
	"text/template"
)

// Registration is what fills in the block for config.toml.
type Registration struct {
	// Driver is the absolute path of this program, Args what stands before
	// each stage's name.
	Driver string
	Args   []string
	// Name, URL and Token describe the runner; empty ones are left to fill in.
	Name, URL, Token string
	// DefaultImage is the image of jobs that name none, "" for a refusal.
	DefaultImage string
	// Allowed are patterns of images that give jobs more than others.
	Allowed []string
}

// prepare are the arguments of the stage prepare.
func (r Registration) prepare() []string {
	args := []string{"prepare"}
	if r.DefaultImage != "" {
		args = append(args, "--default-image="+r.DefaultImage)
	}
	for _, pattern := range r.Allowed {
		args = append(args, "--allow-image="+pattern)
	}
	return args
}

var block = template.Must(template.New("toml").Funcs(template.FuncMap{
	"string": quoteTOML,
	"words":  func(words ...string) []string { return words },
	"stage": func(args []string, stage []string) string {
		var quoted []string
		for _, arg := range slices.Concat(args, stage) {
			quoted = append(quoted, quoteTOML(arg))
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	},
}).Parse(`# For /etc/gitlab-runner/config.toml. Raise "concurrent" at the top of that file:
# it is 1 by default, and counts the jobs of all runners together.
[[runners]]
  name = {{string .Name}}
  url = {{string .URL}}{{if not .URL}}      # your GitLab, as in https://gitlab.example.org/{{end}}
  token = {{string .Token}}{{if not .Token}}    # the runner's authentication token, glrt-...{{end}}
  executor = "custom"
  # Paths inside the machine.
  builds_dir = {{string .BuildsDir}}
  cache_dir = {{string .CacheDir}}
  # limit = 4                  # jobs of this runner at a time
  [runners.custom]
    config_exec = {{string .Driver}}
    config_args = {{stage .Args (words "gitlab-config")}}
    config_exec_timeout = 60

    prepare_exec = {{string .Driver}}
{{- if not .DefaultImage}}
    # Jobs that name no image are refused, unless you add "--default-image=NAME".
{{- end}}
{{- if not .Allowed}}
    # Jobs of images with privileges, devices or writable binds are refused, unless
    # you add "--allow-image=NAME".
{{- end}}
    prepare_args = {{stage .Args .Prepare}}
    prepare_exec_timeout = 300   # longer than boot_timeout

    run_exec = {{string .Driver}}
    run_args = {{stage .Args (words "run")}}

    cleanup_exec = {{string .Driver}}
    cleanup_args = {{stage .Args (words "cleanup")}}
    cleanup_exec_timeout = 120

    # A stage that is told to stop does so within seconds.
    graceful_kill_timeout = 30
    force_kill_timeout = 10
`))

// TOML is a complete [[runners]] block for gitlab-runner's config.toml.
func TOML(r Registration) string {
	if r.Name == "" {
		r.Name = "nspawn-runner"
	}
	var out strings.Builder
	err := block.Execute(&out, struct {
		Registration
		BuildsDir, CacheDir string
		Prepare             []string
	}{r, BuildsDir, CacheDir, r.prepare()})
	if err != nil {
		panic(err) // the template is a constant
	}
	return out.String()
}

// quoteTOML writes a basic string of TOML 1.0.
func quoteTOML(s string) string {
	var out strings.Builder
	out.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			out.WriteByte('\\')
			out.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&out, `\u%04X`, r)
		default:
			out.WriteRune(r)
		}
	}
	out.WriteByte('"')
	return out.String()
}
