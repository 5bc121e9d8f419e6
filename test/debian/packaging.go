package debian

import "time"

// Making of Debian packages, in the order of the jobs of salsa-ci's pipeline:
// extract-source, build, then the tests of what was built. What salsa-ci tests with trees
// that root makes is a group of its own, since these take as long as all else.

// source is a function that makes the source package greet, in the directory greet. It
// uses no debhelper, whose installation takes longer than all that is built with it.
const source = `
source_package() {
	mkdir -p greet/debian/{source,tests}; cd greet
	printf '%s\n' '#include <stdio.h>' 'int main(void) { return puts("greetings") < 0; }' >greet.c
	echo '3.0 (native)' >debian/source/format
	cat >debian/control <<-'END'
	Source: greet
	Section: misc
	Priority: optional
	Maintainer: A Tester <tester@example.org>
	Standards-Version: 4.6.2
	Build-Depends: hello
	Rules-Requires-Root: no

	Package: greet
	Architecture: any
	Depends: libc6
	Description: greets who calls it
	 A package whose only use is to be built in a test.
	END
	cat >debian/changelog <<-'END'
	greet (1.0) unstable; urgency=medium

	  * A package.

	 -- A Tester <tester@example.org>  Wed, 01 Jan 2025 00:00:00 +0000
	END
	printf '%s\n' 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/' '' 'Files: *' 'Copyright: 2025 A Tester' 'License: public-domain' ' Free for all.' >debian/copyright
	printf '%s\n' 'Tests: greets' 'Depends: greet' >debian/tests/control
	printf '%s\n' '#!/bin/sh' 'test "$(greet)" = greetings && echo it greets' >debian/tests/greets
	cat >debian/rules <<'END'
#!/usr/bin/make -f
include /usr/share/dpkg/buildflags.mk
docs = debian/greet/usr/share/doc/greet
build build-arch:
	hello
	$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o greet greet.c
build-indep binary-indep:
clean:
	rm -rf greet debian/greet debian/files
binary binary-arch: build-arch
	install -D greet debian/greet/usr/bin/greet
	strip --remove-section=.comment --remove-section=.note debian/greet/usr/bin/greet
	install -D --mode=644 debian/copyright $(docs)/copyright
	gzip -9n <debian/changelog >$(docs)/changelog.gz; chmod 644 $(docs)/changelog.gz
	mkdir -p debian/greet/DEBIAN
	dpkg-gencontrol -pgreet -Pdebian/greet
	find debian/greet -newermt @$(SOURCE_DATE_EPOCH) -exec touch --no-dereference --date=@$(SOURCE_DATE_EPOCH) {} +
	dpkg-deb --root-owner-group --build debian/greet ..
.PHONY: build build-arch build-indep binary binary-arch binary-indep clean
END
	chmod +x debian/rules debian/tests/greets
	cd ..
}
`

var packaging = Group{
	Name:     "packaging",
	Takes:    2 * time.Minute,
	Images:   Images,
	Backends: allBackends[:1],
	Cases: []Case{
		{
			Name: "mmdebstrap in unshare mode, as an ordinary user",
			Script: `
as builder <<'END'
mkdir -p .cache/sbuild
mmdebstrap --quiet --mode=unshare --variant=buildd --include=apt-utils,hello $suite .cache/sbuild/$suite-amd64.tar
END
`,
		},
		{
			Name: "dpkg-source (extract-source)",
			Script: source + `
cd ~builder; source_package; dpkg-source --build greet; chown -R builder: .; ls greet_1.0.dsc
`,
		},
		{
			Name: "sbuild in unshare mode, as an ordinary user (build)",
			Script: `
as builder <<'END'
sbuild --chroot-mode=unshare --dist=$suite --no-run-lintian --no-apt-upgrade --no-apt-distupgrade greet_1.0.dsc </dev/null >sbuild.log 2>&1 || { tail -n 30 sbuild.log; false; }
ls greet_1.0_amd64.deb greet_1.0_amd64.changes
END
`,
		},
		{
			Name:   "autopkgtest in unshare mode, as an ordinary user",
			Images: Images[1:],
			Script: `
as builder <<'END'
autopkgtest --no-built-binaries greet_1.0_amd64.deb greet_1.0.dsc -- unshare --release $suite --tarball .cache/sbuild/$suite-amd64.tar
END
`,
		},
		{
			Name:   "autopkgtest on the machine itself (null)",
			Images: Images[1:],
			Script: `
cd ~builder; apt-get -qq update
autopkgtest --no-built-binaries greet_1.0_amd64.deb greet_1.0.dsc -- null
apt-get -qq purge greet
`,
		},
		{
			Name:   "blhc, lintian",
			Images: Images[1:],
			Script: `
as builder <<'END'
blhc greet_1.0_amd64.build
lintian --fail-on error greet_1.0_amd64.changes
END
`,
		},
		{
			Name:   "reprotest with its usual variations",
			Images: Images[1:],
			Script: `
as builder <<'END'
reprotest --no-diffoscope --source-pattern greet/ 'cd greet && dpkg-buildpackage --no-sign --build=binary --no-check-builddeps' 'greet_1.0_amd64.deb' >reprotest.log 2>&1 </dev/null || { tail -n 30 reprotest.log; false; }
END
`,
		},
	},
}

var trees = Group{
	Name:     "trees",
	Takes:    2 * time.Minute,
	Images:   Images[1:],
	Backends: allBackends[:1],
	Setup: source + `
cd ~builder; source_package; cd greet; dpkg-buildpackage --no-sign --no-check-builddeps >/dev/null
`,
	Cases: []Case{
		{
			Name: "mmdebstrap as root",
			Script: `
mkdir /var/lib/lxc/built; cd /var/lib/lxc/built
mmdebstrap --quiet --mode=root --variant=minbase --include=apt-utils,dbus,systemd-sysv $suite rootfs
chroot rootfs dpkg --audit
`,
		},
		{
			Name: "systemd-nspawn --boot",
			Script: `
systemd-run --quiet --collect --property=Type=notify --unit=nested systemd-nspawn --notify-ready=yes --directory=/var/lib/lxc/built/rootfs --machine=nested --volatile=overlay --private-network --boot
machinectl status nested
systemctl --machine=nested --wait is-system-running
systemctl stop nested
`,
		},
		{
			Name: "autopkgtest in lxc",
			Note: "without `--ephemeral`: dpkg fails on the overlay that lxc makes for it",
			Script: `
ln -s /dev/null /var/lib/lxc/built/rootfs/etc/systemd/system/tmp.mount # as autopkgtest-build-lxc does
cat >/var/lib/lxc/built/config <<'END'
lxc.include = /usr/share/lxc/config/common.conf
lxc.arch = amd64
lxc.rootfs.path = dir:/var/lib/lxc/built/rootfs
lxc.uts.name = built
lxc.net.0.type = empty
lxc.apparmor.profile = unconfined
END
cd ~builder
autopkgtest --no-built-binaries greet_1.0_amd64.deb greet/ -- lxc built
`,
		},
		{
			Name: "piuparts",
			Note: "with a base tarball without device nodes (`tar --exclude='./dev/*'`, `mmtarfilter --path-exclude='/dev/*'`), because tar cannot create them",
			Script: `
cd ~builder
tar -C /var/lib/lxc/built/rootfs --exclude='./dev/*' -c . | gzip -1 >/srv/minbase.tgz
piuparts --basetgz=/srv/minbase.tgz --distribution=$suite --no-upgrade-test greet_1.0_amd64.deb >/srv/piuparts.log || { tail -n 30 /srv/piuparts.log; false; }
`,
		},
		{
			Name: "debootstrap as root",
			Note: "not in images of bookworm, see below",
			Script: `
debootstrap --variant=buildd $suite /srv/debootstrap >/srv/debootstrap.log || { tail -n 20 /srv/debootstrap.log /srv/debootstrap/debootstrap/debootstrap.log; false; }
chroot /srv/debootstrap dpkg --audit
`,
		},
		{
			Name: "pbuilder",
			Note: "with a base made by debootstrap",
			Script: `
chroot /srv/debootstrap apt-get -qq update
tar -C /srv/debootstrap -c . | gzip -1 >/srv/base.tgz
echo PBUILDERSATISFYDEPENDSCMD=/usr/lib/pbuilder/pbuilder-satisfydepends-apt >/root/.pbuilderrc
cd ~builder; mkdir /srv/result
pbuilder build --basetgz /srv/base.tgz --buildresult /srv/result greet_1.0.dsc >/srv/pbuilder.log || { tail -n 30 /srv/pbuilder.log; false; }
ls /srv/result/greet_1.0_amd64.deb
`,
		},
	},
}
