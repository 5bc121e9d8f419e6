package gitlab

import (
	"fmt"
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
}

var block = template.Must(template.New("toml").Funcs(template.FuncMap{
	"string": quoteTOML,
	"stage": func(args []string, stage ...string) string {
		var quoted []string
		for _, arg := range append(append([]string{}, args...), stage...) {
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
    config_args = {{stage .Args "gitlab-config"}}
    config_exec_timeout = 60

    prepare_exec = {{string .Driver}}
{{- if .DefaultImage}}
    prepare_args = {{stage .Args "prepare" (printf "--default-image=%s" .DefaultImage)}}
{{- else}}
    # Jobs that name no image are refused, unless you add "--default-image=NAME".
    prepare_args = {{stage .Args "prepare"}}
{{- end}}
    prepare_exec_timeout = 300   # longer than boot_timeout

    run_exec = {{string .Driver}}
    run_args = {{stage .Args "run"}}

    cleanup_exec = {{string .Driver}}
    cleanup_args = {{stage .Args "cleanup"}}
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
	}{r, BuildsDir, CacheDir})
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
