package debian

// Sandboxes and namespaces, as other programs are made of them.

var sandboxes = Group{
	Name:     "sandboxes",
	Images:   Images,
	Backends: allBackends[:1],
	Cases: []Case{
		{
			Name: "bubblewrap (bwrap), as an ordinary user",
			Note: "also flatpak-builder and other programs that use it",
			Script: `
as builder <<'END'
bwrap --ro-bind / / --proc /proc --dev /dev --tmpfs /tmp --unshare-all --die-with-parent sh -c 'test $(ps ax | wc -l) -lt 10'
bwrap --bind / / --dev-bind /dev /dev --uid 0 --gid 0 --unshare-user --unshare-pid --proc /proc id -u | grep -x 0
END
`,
		},
		{
			Name: "unshare, with all its flags",
			Script: `
unshare --mount --uts --ipc --net --pid --cgroup --time --fork --mount-proc sh -ec 'hostname inner; ip link set lo up; test $$ = 1; test $(ls -d /proc/[0-9]* | wc -l) -lt 5'
as builder <<'END'
test "$(unshare --user --map-root-user id -u)" = 0
unshare -Urmpf --mount-proc sh -ec 'test $$ = 1; mount -t tmpfs none /mnt; mount --bind /usr /mnt'
unshare -Urn sh -ec 'ip link set lo up; ping -c 1 127.0.0.1'
unshare -UriuCT --map-current-user sh -c 'true' || unshare -UriuCT true
unshare --map-auto --map-root-user --mount --pid --fork --mount-proc --kill-child sh -ec 'touch f; chown 1000:1000 f; test $(stat -c %u f) = 1000; rm f'
END
`,
		},
		{
			Name: "ip netns exec, with veth between namespaces",
			Script: `
ip netns add one; ip netns add two
ip link add name a netns one type veth peer name b netns two
ip -n one address add 10.9.0.1/24 dev a; ip -n two address add 10.9.0.2/24 dev b
ip -n one link set dev a up; ip -n two link set dev b up
ip netns exec one ping -c 1 -W 5 10.9.0.2
ip netns exec one ls /sys/class/net/a
ip netns delete one; ip netns delete two
`,
		},
		{
			Name: "systemd-nspawn in a machine",
			Note: "without `-U`",
			Script: `
box /srv/nested; cp /etc/os-release /srv/nested/etc
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
test "$(systemd-nspawn --quiet --directory=/srv/nested --pipe echo out)" = out
`,
		},
		{
			Name: "lxc",
			Script: `
mkdir -p /var/lib/lxc/one/rootfs; box /var/lib/lxc/one/rootfs; mkdir -p /var/lib/lxc/one/rootfs/{proc,sys,dev}
cat >/var/lib/lxc/one/config <<'END'
lxc.include = /usr/share/lxc/config/common.conf
lxc.arch = amd64
lxc.rootfs.path = dir:/var/lib/lxc/one/rootfs
lxc.uts.name = one
lxc.net.0.type = empty
lxc.apparmor.profile = unconfined
lxc.init.cmd = /bin/sleep 1000
END
lxc-start --name one --logfile /srv/lxc.log --logpriority INFO || { tail -n 20 /srv/lxc.log; false; }
lxc-wait --name one --state RUNNING --timeout 20
test "$(lxc-attach --name one -- hostname)" = one
lxc-stop --name one --kill
`,
		},
	},
}
