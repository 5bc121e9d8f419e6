package texts

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"nspawn-runner/runner/config"
)

// writeSettings writes the manual pages of the configuration file and of playbooks.
func writeSettings(dir string) error {
	date, err := date()
	if err != nil {
		return err
	}
	page := func(name, text string, list string) error {
		head := fmt.Sprintf("%% %q \"5\" %q %q\n", strings.ToUpper(name), date.Format("Jan 2006"), title)
		tail := "\n# SEE ALSO\n**nspawn-runner(1)**, **nspawn-runner.yaml(5)**, **nspawn-runner-playbook(5)**\n"
		return os.WriteFile(filepath.Join(dir, name+".5"), roff(head+text+list+tail), 0o644)
	}
	return errors.Join(
		page("nspawn-runner.yaml", configuration,
			list("", func(k config.Key) bool { return k.Host })),
		page("nspawn-runner-playbook", playbook,
			list(config.VariablePrefix, func(k config.Key) bool { return k.Image })),
	)
}

// date is the time of the source, for builds that shall be the same again: the
// specification of SOURCE_DATE_EPOCH.
func date() (time.Time, error) {
	epoch := os.Getenv("SOURCE_DATE_EPOCH")
	if epoch == "" {
		return time.Now().UTC(), nil
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// list is a list of settings below the headings of docs/configuration.md, in Markdown.
func list(prefix string, which func(config.Key) bool) string {
	var out strings.Builder
	title, printed := "", ""
	for _, key := range config.Keys {
		title = cmp.Or(key.Section(), title)
		if !which(key) {
			continue
		}
		if title != printed {
			fmt.Fprintf(&out, "\n### %s\n", title)
			printed = title
		}
		fmt.Fprintf(&out, "\n**%s%s**\n: %s", prefix, key.Name, key.Plain())
		if key.Default != "" {
			fmt.Fprintf(&out, " Default: `%s`.", key.Default)
		}
		out.WriteString("\n")
	}
	return out.String()
}

const configuration = `# NAME
nspawn-runner.yaml - configuration of nspawn-runner

# SYNOPSIS
**/etc/nspawn-runner.yaml**

# DESCRIPTION
The file sets defaults for the host. It is optional, and so is each key. **--config** *FILE* reads
another file. An unknown key or a bad value is an error, which names the line. Pages that are named
here, such as jobs.md, are in /usr/share/doc/nspawn-runner/docs.

It is YAML, with lines of the form **key: value**:

` + "```\nmemory_max: 4G\nnetwork: private\nimages:\n  \"debian:12\": bookworm\n```" + `

Many settings can be set for a single image too, in its playbook: nspawn-runner-playbook(5). An
amount is written like **512M**, **2G**, **10%** or **infinity**, a time like **90s**, **5m**, **24h**
or **7d**.

# SETTINGS
`

const playbook = `# NAME
nspawn-runner-playbook - playbooks of images of nspawn-runner

# SYNOPSIS
**/etc/nspawn-runner/**NAME**.yaml**

# DESCRIPTION
The playbook **NAME.yaml** or **NAME.yml** in /etc/nspawn-runner/ says how the image NAME is built.
It is an Ansible playbook:

` + "```\n- name: image bookworm\n  hosts: all\n  vars:\n    nspawn_runner_chroot_suite: bookworm\n  tasks:\n    - ansible.builtin.apt:\n        name: [build-essential, devscripts]\n        update_cache: true\n```" + `

**nspawn-runner chroot-maintenance** runs the playbooks of all images on copies of their current
generations, and publishes what has changed. Running jobs keep their generation. Other YAML files may
lie beside the playbooks; no image is built from them.

Tasks run as root in the tree of the image, without services, unless ` + "`nspawn_runner_build`" + ` is
**booted**.

# VARIABLES
Variables of the first play that begin with ` + "`nspawn_runner_`" + ` are settings of the image. Their values
are literal and cannot contain **{{ }}**, because they are read before Ansible runs. Amounts and times
are written as in nspawn-runner.yaml(5). Pages that are named here, such as jobs.md, are in
/usr/share/doc/nspawn-runner/docs.
`
