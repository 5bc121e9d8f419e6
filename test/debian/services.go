package debian

// Daemons, installed by a job and started by their packages.

var services = Group{
	Name:     "services",
	Images:   Images,
	Backends: allBackends[:1],
	Setup: `
apt-get -qq update
apt-get -qq install --no-install-recommends mariadb-server nginx-light openssh-server postgresql redis-server >/dev/null
`,
	Cases: []Case{
		{
			Name: "postgresql by apt, in the job",
			Script: `
su postgres -c 'createuser --superuser root'
test "$(psql --tuples-only --no-align --command='select 6 * 7' postgres)" = 42
systemctl restart postgresql
`,
		},
		{
			Name:   "mariadb",
			Script: `test "$(mariadb --batch --skip-column-names --execute='select 6 * 7')" = 42`,
		},
		{
			Name:   "redis",
			Script: `redis-cli set key value; test "$(redis-cli get key)" = value`,
		},
		{
			Name:   "nginx",
			Script: `systemctl restart nginx; curl --silent --fail http://127.0.0.1/ | grep -i nginx`,
		},
		{
			Name: "ssh to localhost, as a user",
			Script: `
as builder <<'END'
ssh-keygen -q -N '' -f ~/.ssh/id_ed25519 -t ed25519
cp ~/.ssh/id_ed25519.pub ~/.ssh/authorized_keys
test "$(ssh -n -o StrictHostKeyChecking=no localhost whoami)" = builder
END
`,
		},
		{
			Name: "a user's service manager, with lingering",
			Script: `
loginctl enable-linger builder
systemd-run --quiet --user --machine=builder@ --wait touch /tmp/of-builder
test "$(stat -c %U /tmp/of-builder)" = builder
`,
		},
	},
}
