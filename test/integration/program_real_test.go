package integration

import (
	"io"
	"os/exec"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"nspawn-runner/test/gitlab"
)

// entry is the entrypoint of an image with PostgreSQL: it does as root what is root's, and goes
// on as the user of the server, as those of the official images do.
const entry = `#!/bin/bash
set -e
if [ "$(id -u)" = 0 ]; then
    install -d -o postgres -g postgres -m 2775 /run/postgresql
    exec setpriv --reuid=postgres --regid=postgres --init-groups -- "$0" "$@"
fi
data=/var/lib/postgresql/data
printf 'local all all trust\nhost all all all trust\n' >$data/pg_hba.conf
exec /usr/lib/postgresql/*/bin/postgres -D $data -c listen_addresses=127.0.0.1,::1 "$@"
`

// postgresOfARegistry makes an image of a registry of a Debian tree that has PostgreSQL, and two
// services of one job of that.
func (h *host) postgresOfARegistry(t *testing.T) {
	t.Helper()
	r := h.serves(t, "")
	tree := layerOfTar(t, func() (io.ReadCloser, error) {
		cmd := exec.Command("tar", "--create", "--directory="+h.state+"/postgres/", "--exclude=./usr/share/doc", "--exclude=./usr/share/locale", "--exclude=./var/cache", "--exclude=./var/lib/apt", ".")
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		return out, cmd.Start()
	})
	image := r.pushLayers(t, "postgres:17", v1.Config{
		Entrypoint: []string{"/entry"}, ExposedPorts: map[string]struct{}{"5432/tcp": {}}, StopSignal: "SIGINT",
	}, tree, layerOf(t, map[string]file{"entry": {text: entry}}))
	job := h.play(t, gitlab.Job{
		Image: gitlab.Image{Name: "clients"},
		Services: []gitlab.Image{
			{Name: image, Alias: "db"},
			{Name: image, Alias: "other", Command: []string{"-p", "5433"}, Variables: literally("HEALTHCHECK_TCP_PORT", "5433")},
		},
		Script: []string{
			"set -e", "psql -h db -U postgres -Atc \"create table t as select 'one' as a; select 'from ' || a from t\"",
			"psql -h other -p 5433 -U postgres -Atc \"select 'another'\"", "! psql -h other -p 5433 -U postgres -c 'select * from t' 2>/dev/null",
		},
	})
	if job.Status != gitlab.Success {
		t.Error(job.Log)
	}
	wantLog(t, job.Log, "\nfrom one\n", "\nanother\n")
}
