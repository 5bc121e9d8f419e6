package debian

// Containers. There is no registry here: images begin with a tar of a few tools.

var docker = Group{
	Name:     "docker",
	Images:   Images,
	Backends: allBackends,
	Setup: `
systemctl start docker
box /srv/box
tar -C /srv/box -c . | docker import - box
`,
	Cases: []Case{
		{
			Name: "docker with overlay2 as its storage",
			Note: "on btrfs, docker of bookworm uses its own btrfs driver, unless `/etc/docker/daemon.json` names another",
			Script: `
driver=$(docker info --format '{{.Driver}}')
case $suite$(stat --file-system --format %T /var/lib/docker) in
bookwormbtrfs) test "$driver" = btrfs ;;
*) test "$driver" = overlay2 ;;
esac
`,
		},
		{
			Name: "docker run, exec, logs, cp, volumes, users",
			Script: `
test "$(docker run --rm box echo out)" = out
test "$(docker run --rm --user 1000:1000 box id -u)" = 1000
docker volume create kept
docker run --rm --volume kept:/kept box sh -c 'echo 1 >/kept/file'
test "$(docker run --rm --volume kept:/kept --volume /srv/box:/box:ro box cat /kept/file /box/srv/index.html)" = $'1\na page'
docker run --detach --init --name runs box sh -c 'echo begun; exec sleep 1000'
docker exec runs ps | grep sleep
docker cp /etc/passwd runs:/tmp/
docker exec runs grep builder /tmp/passwd
docker logs runs | grep begun
docker rm --force runs
`,
		},
		{
			Name: "docker build, save and load",
			Script: `
mkdir /srv/build; cd /srv/build; echo text >file
printf '%s\n' 'FROM box' 'COPY file /file' 'RUN cat /file >/copy && chown 1000:1000 /copy && rm /file' 'CMD ["cat", "/copy"]' >Dockerfile
docker build --tag made .
test "$(docker run --rm made)" = text
docker save made >/srv/made.tar
docker rmi made
docker load </srv/made.tar
test "$(docker run --rm made)" = text
`,
		},
		{
			Name: "docker networks, published ports, the way out",
			Script: `
docker network create inner
docker run --detach --name web --network inner --publish 8080:80 box httpd -f -p 80 -h /srv
test "$(curl --silent --show-error --retry 20 --retry-all-errors http://127.0.0.1:8080/)" = 'a page'
test "$(docker run --rm --network inner box wget -q -O - http://web/)" = 'a page'
docker run --rm box wget -q -O /dev/null http://deb.debian.org/debian/dists/$suite/Release
docker rm --force web; docker network rm inner
`,
		},
		{
			Name: "docker compose",
			Script: `
mkdir /srv/compose; cd /srv/compose
cat >docker-compose.yml <<'END'
version: "3.7"
services:
  web: {image: box, init: true, command: httpd -f -p 80 -h /srv}
  asks: {image: box, depends_on: [web], command: sh -c 'until wget -q -O - http://web/; do sleep 0.1; done'}
END
docker-compose up --exit-code-from asks
docker-compose down --timeout 0
`,
		},
		{
			Name: "docker run --privileged",
			Note: "the privileges end at the machine; docker of bookworm asks for capabilities that no machine has, so use options such as `--cap-add=SYS_ADMIN --security-opt=seccomp=unconfined` instead",
			Script: `
privileged=--privileged
[ "$suite" != bookworm ] || privileged='--cap-add=SYS_ADMIN --cap-add=NET_ADMIN --security-opt=seccomp=unconfined'
docker run --rm $privileged box sh -ec 'mkdir /m; mount -t tmpfs none /m; ip link add made type bridge; unshare -m true'
`,
		},
		{
			Name: "docker with the storage that /etc/docker/daemon.json names",
			Note: "such as `{\"storage-driver\": \"overlay2\"}`",
			Script: `
systemctl stop docker docker.socket
mkdir -p /etc/docker; echo '{"storage-driver": "overlay2"}' >/etc/docker/daemon.json
systemctl start docker
test "$(docker info --format '{{.Driver}}')" = overlay2
tar -C /srv/box -c . | docker import - box2
test "$(docker run --rm box2 echo out)" = out
`,
		},
	},
}

var podman = Group{
	Name:     "podman",
	Images:   Images,
	Backends: allBackends,
	// A lab has no controllers, and podman wants one unless it is told otherwise.
	Setup: `
grep pids /sys/fs/cgroup/cgroup.controllers || printf '[containers]\npids_limit = 0\n' >/etc/containers/containers.conf
loginctl enable-linger builder
box /srv/box
tar -C /srv/box -c . >/srv/box.tar
podman import /srv/box.tar box
`,
	Cases: []Case{
		{
			Name: "podman run, build and networks, as root",
			Note: "to resolve names of other containers, podman of bookworm needs a user service manager of root: `loginctl enable-linger root; export XDG_RUNTIME_DIR=/run/user/0`",
			Script: `
[ "$suite" != bookworm ] || { loginctl enable-linger root; export XDG_RUNTIME_DIR=/run/user/0; }
test "$(podman run --rm localhost/box echo out)" = out
test "$(podman run --rm --user 1000:1000 localhost/box id -u)" = 1000
mkdir /srv/build; cd /srv/build; echo text >file
printf '%s\n' 'FROM localhost/box' 'COPY file /file' 'RUN cat /file >/copy' 'CMD ["cat", "/copy"]' >Dockerfile
podman build --tag made .
test "$(podman run --rm made)" = text
podman network create inner
podman run --detach --name web --network inner --publish 8080:80 localhost/box httpd -f -p 80 -h /srv
test "$(curl --silent --show-error --retry 20 --retry-all-errors http://127.0.0.1:8080/)" = 'a page'
test "$(podman run --rm --network inner localhost/box wget -q -O - http://web/)" = 'a page'
podman rm --force --time 0 web
`,
		},
		{
			Name: "podman pods",
			Script: `
podman pod create --name pod --infra-image localhost/box --infra-command 'sleep 1000' 
podman run --detach --pod pod localhost/box httpd -f -p 80 -h /srv
podman run --rm --pod pod localhost/box sh -c 'until wget -q -O - http://127.0.0.1/; do sleep 0.1; done'
podman pod rm --force --time 0 pod
`,
		},
		{
			Name: "podman as an ordinary user: run, build, pods, published ports",
			Note: "podman needs a service manager of the user: `loginctl enable-linger USER`",
			Script: `
as builder <<'END'
podman import /srv/box.tar box
test "$(podman run --rm localhost/box echo out </dev/null)" = out
test "$(podman run --rm --user 1000:1000 localhost/box id -u </dev/null)" = 1000
mkdir build; cd build; echo text >file
printf '%s\n' 'FROM localhost/box' 'COPY file /file' 'RUN cat /file >/copy && chown 1000:1000 /copy' 'CMD ["cat", "/copy"]' >Dockerfile
podman build --tag made . </dev/null
test "$(podman run --rm made </dev/null)" = text
podman pod create --name pod --publish 8081:80 --infra-image localhost/box --infra-command 'sleep 1000'
podman run --detach --pod pod localhost/box httpd -f -p 80 -h /srv
test "$(curl --silent --show-error --retry 20 --retry-all-errors http://127.0.0.1:8081/)" = 'a page'
podman pod rm --force --time 0 pod
podman run --rm localhost/box wget -q -O /dev/null http://deb.debian.org/debian/dists/$suite/Release </dev/null
END
`,
		},
		{
			Name: "buildah from scratch, as root and as an ordinary user",
			Script: `
cat >/srv/buildah <<'END'
cd "$(mktemp -d)"
c=$(buildah from scratch)
buildah add "$c" /srv/box.tar /
buildah run "$c" sh -c 'echo built >/file' </dev/null
buildah config --cmd 'cat /file' "$c"
buildah commit "$c" buildahs
test "$(podman run --rm localhost/buildahs </dev/null)" = built
END
bash -eux /srv/buildah
as builder </srv/buildah
`,
		},
		{
			Name: "skopeo copy and inspect",
			Script: `
skopeo copy containers-storage:localhost/box:latest oci:/srv/oci:box
skopeo inspect oci:/srv/oci:box | grep Layers
`,
		},
	},
}
