package integration

import (
	"os"
	"path/filepath"
	"testing"

	"al.essio.dev/pkg/shellescape"

	"nspawn-runner/test/gitlab"
)

// clientsPlaybook makes the image of jobs that use databases.
const clientsPlaybook = `- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.apt:
        name: [postgresql-client, redis-tools, mariadb-client]
        install_recommends: false
        update_cache: true
`

// buildPlaybooks builds the services of the directory playbooks, and an image with their
// clients, all at once.
func (h *host) buildPlaybooks(t *testing.T, names ...string) {
	t.Helper()
	books := map[string]string{"clients": clientsPlaybook}
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(os.Getenv("NSPAWN_RUNNER_PLAYBOOKS"), name+".yaml"))
		must(t, err)
		books[name] = string(text)
	}
	for name, text := range books {
		path := filepath.Join(h.playbooks, name+".yaml")
		must(t, os.WriteFile(path, []byte(text), 0o644))
		t.Cleanup(func() { os.Remove(path) })
		h.addImage(t, name, "")
	}
	h.drives(t, "chroot-maintenance", "--jobs", "4")
}

// hostile is a text that is something else wherever it is not quoted.
const hostile = "'\"`\\ $(id) $HOME %s;\n\\q -- #ä\\"

// literally are variables without references to others.
func literally(pairs ...string) (all []gitlab.Variable) {
	for i := 0; i < len(pairs); i += 2 {
		all = append(all, gitlab.Variable{Key: pairs[i], Value: pairs[i+1], Public: true, Raw: true})
	}
	return all
}

// The playbooks that ship with the program, and Debian's clients. The job's variables for
// its clients are also seen by the services, which must not take them for their own.
func TestJobsUseTheDatabasesOfThePlaybooks(t *testing.T) {
	needLab(t)
	h := onHost(t, "overlay")
	h.buildPlaybooks(t, "postgres", "redis", "mariadb")
	t.Run("with variables that are hostile", func(t *testing.T) {
		sql := "mariadb --batch --skip-column-names --protocol=tcp --user=" + shellescape.Quote("u"+hostile) + " --password=" + shellescape.Quote("p"+hostile) + " "
		r := h.play(t, gitlab.Job{
			Image: gitlab.Image{Name: "clients"},
			Variables: literally("PGHOST", "db", "PGPORT", "5433", "PGUSER", "u"+hostile, "PGDATABASE", "d"+hostile, "PGPASSWORD", "p"+hostile,
				"MYSQL_HOST", "mariadb", "MYSQL_PWD", "p"+hostile, "REDISCLI_AUTH", "p"+hostile),
			Services: []gitlab.Image{
				{
					Name: "postgres:16", Alias: "db", Command: []string{"postgres", "-c", "application_name=" + hostile, "-p", "5433"},
					Variables: literally("POSTGRES_USER", "u"+hostile, "POSTGRES_PASSWORD", "p"+hostile, "POSTGRES_DB", "d"+hostile),
				},
				{Name: "redis", Command: []string{"--maxmemory", "10mb", "--proc-title-template", "{title} " + hostile}, Variables: literally("REDIS_PASSWORD", "p"+hostile)},
				{
					Name: "mariadb:11.4", Command: []string{"--sql-mode=ANSI_QUOTES,NO_BACKSLASH_ESCAPES", "--init-connect=set @a = 1 /*" + hostile + "*/"},
					Variables: literally("MARIADB_RANDOM_ROOT_PASSWORD", "yes", "MYSQL_USER", "u"+hostile, "MARIADB_PASSWORD", "p"+hostile, "MYSQL_DATABASE", "d_"+hostile),
				},
			},
			Script: []string{
				"set -e; refused() { ! \"$@\" >/dev/null 2>&1; }",
				"for host in db 127.0.0.1 ::1; do psql -h $host -Atc \"select 'postgres '||pg_encoding_to_char(encoding) from pg_database where datname = current_database() and pg_get_userbyid(datdba) = current_user\"; done",
				"PGPASSWORD=wrong refused psql -c 'select 1'", "refused psql -U postgres postgres -c 'select 1'",
				"for host in redis 127.0.0.1 ::1; do redis-cli -h $host incr redis; done",
				"redis-cli config get maxmemory", "redis-cli --no-auth-warning -a wrong ping 2>&1 | grep -o WRONGPASS",
				"for host in mariadb 127.0.0.1 ::1; do " + sql + "--host=$host --execute=\"select 'mariadb', @a, current_user() like 'u%@\\%', database() like 'd%'; create table t (a int); drop table t\" " + shellescape.Quote("d_"+hostile) + "; done",
				"refused " + sql + "--execute='create database other'", "refused " + sql + "--password=wrong --execute='select 1'", "refused mariadb --protocol=tcp --user=root --execute='select 1'",
				"echo all done",
			},
		})
		if r.Status != gitlab.Success {
			t.Errorf("%s %s: %s", r.Status, r.Message, r.Log)
		}
		wantLog(t, r.Log, "\npostgres UTF8\npostgres UTF8\npostgres UTF8\n", "\n1\n2\n3\n", "\nmaxmemory\n10485760\n", "\nWRONGPASS\n",
			"\nmariadb\t1\t1\t1\nmariadb\t1\t1\t1\nmariadb\t1\t1\t1\n", "\nall done\n")
	})
	t.Run("without passwords", func(t *testing.T) {
		r := h.play(t, gitlab.Job{
			Image: gitlab.Image{Name: "clients"},
			Services: []gitlab.Image{
				{Name: "postgres", Variables: literally("POSTGRES_HOST_AUTH_METHOD", "trust", "POSTGRES_INITDB_ARGS", "--auth=scram-sha-256 --locale=C --wal-segsize='4'", "POSTGRES_USER_FILE", "/x")},
				{Name: "redis:7", Variables: literally("REDIS_ARGS", "--save 1 1")},
				{Name: "mariadb:lts", Variables: literally("MYSQL_ALLOW_EMPTY_PASSWORD", "1", "MARIADB_ROOT_HOST", "127.0.0.1", "MARIADB_REPLICATION_USER", "r")},
			},
			Script: []string{
				"psql -h postgres -U postgres -Atc \"select 'postgres', datcollate, current_setting('wal_segment_size'), current_setting('fsync') from pg_database where datname = 'postgres'\"", "redis-cli -h redis ping",
				"mariadb --protocol=tcp --host=127.0.0.1 --user=root --skip-column-names --execute=\"select 'mariadb', current_user()\"",
				"! mariadb --protocol=tcp --host=::1 --user=root --execute='select 1'",
			},
		})
		if r.Status != gitlab.Success {
			t.Errorf("%s %s: %s", r.Status, r.Message, r.Log)
		}
		wantLog(t, r.Log, "\npostgres|C|4MB|off\n", "\nPONG\n", "\nmariadb\troot@127.0.0.1\n",
			"warning: service postgres: POSTGRES_USER_FILE has no effect", "warning: service redis:7: REDIS_ARGS has no effect", "warning: service mariadb:lts: MARIADB_REPLICATION_USER has no effect")
	})
	t.Run("postgres from an image of a registry", h.postgresOfARegistry)
	for name, c := range map[string]struct {
		service gitlab.Image
		want    string
	}{
		"postgres without a password": {gitlab.Image{Name: "postgres"}, "POSTGRES_PASSWORD is not set: "},
		"mariadb without a password":  {gitlab.Image{Name: "mariadb"}, "MARIADB_ROOT_PASSWORD is not set: "},
		"two at one port":             {gitlab.Image{Name: "postgres:16"}, "service postgres:15 and service postgres:16 both listen at port 5432, "},
		"wrong arguments of initdb": {
			gitlab.Image{Name: "postgres", Variables: literally("POSTGRES_PASSWORD", "x", "POSTGRES_INITDB_ARGS", "--locale=xx_XX")}, "initdb with POSTGRES_INITDB_ARGS: ",
		},
		"a wrong setting": {
			gitlab.Image{Name: "postgres", Command: []string{"-c", "wrong=1"}, Variables: literally("POSTGRES_PASSWORD", "x")},
			`FATAL:  unrecognized configuration parameter "wrong"`,
		},
		"another program": {gitlab.Image{Name: "redis", Entrypoint: []string{"sh", "-c"}, Command: []string{"true"}}, "this service runs nothing but redis-server: "},
	} {
		t.Run(name, func(t *testing.T) {
			services := []gitlab.Image{c.service}
			if name == "two at one port" {
				services = append([]gitlab.Image{{Name: "postgres:15", Alias: "other"}}, services...)
				services[1].Alias = "db"
			}
			r := h.play(t, gitlab.Job{Image: gitlab.Image{Name: "clients"}, Services: services, Script: []string{"echo never"}})
			if r.Status != gitlab.Failed || r.Reason != gitlab.ScriptFailure {
				t.Errorf("%s %s", r.Status, r.Reason)
			}
			wantLog(t, r.Log, c.want)
		})
	}
}
