package suite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"nspawn-runner/test/harness"
)

// Bench measures, in a lab, what a job costs beyond its script: on overlay and
// on btrfs, with a copy of the base tree as the image.
func Bench(ctx context.Context, out io.Writer) error { return bench(ctx, out) }

// BenchImages measures, in a lab, how long images take: on overlay and on btrfs.
func BenchImages(ctx context.Context, out io.Writer) error {
	return bench(ctx, out, "-images", "-plugins", hostPlugins)
}

// hostPlugins is where a lab for bench sees our plugins for ansible.
const hostPlugins = "/opt/ansible"

// BenchServices measures, in a lab, how long it takes until a job can use its services, beside
// podman. other is another build of the driver to compare with, if it is not "".
func BenchServices(ctx context.Context, out io.Writer, other string) error {
	args := []string{"-services"}
	if other != "" {
		program, err := os.ReadFile(other)
		if err == nil {
			err = os.WriteFile(filepath.Join(buildDir, "other"), program, 0o755)
		}
		if err != nil {
			return err
		}
		args = append(args, "-other", filepath.Join(hostBuild, "other"))
	}
	return bench(ctx, out, args...)
}

func bench(ctx context.Context, out io.Writer, args ...string) error {
	if err := harness.Need(ctx, out, harness.LabPackages...); err != nil {
		return err
	}
	build, err := Compile(ctx, "./test/bench")
	if err != nil {
		return err
	}
	plugins, err := filepath.Abs("runner/image/ansible/connection")
	if err != nil {
		return err
	}
	base, err := harness.Tree(ctx, out, harness.BaseTree)
	if err != nil {
		return err
	}
	playbooks, err := filepath.Abs("playbooks")
	if err != nil {
		return err
	}
	lab, err := harness.StartLab(ctx, harness.LabOptions{
		ReadOnly: map[string]string{build: hostBuild, base: hostBase, plugins: hostPlugins, playbooks: hostPlaybooks},
		Out:      out,
	})
	if err != nil {
		return err
	}
	defer lab.Stop()
	// A file system without a past for each: where many files were removed
	// ext4 makes new ones slowly for minutes, going round the inodes that just
	// became free (recently_deleted in fs/ext4/ialloc.c; measured: a copy of
	// 300 MB 1.1 s, then 5 to 10 s, nearly all of it the kernel's).
	for _, on := range []struct{ backend, fs string }{{"overlay", "ext4"}, {"btrfs", "btrfs"}} {
		fmt.Fprintf(out, "\n== %s\n", on.backend)
		state := filepath.Join(hostScratch, on.backend)
		script := fmt.Sprintf(`set -e; mkdir %[1]s; truncate -s 8G %[1]s.img; mkfs.%[2]s -q %[1]s.img >/dev/null; mount -o loop %[1]s.img %[1]s
if [ %[2]s = btrfs ]; then btrfs -q subvolume create %[1]s/bookworm; fi
mkdir -p %[1]s/bookworm; cp -a %[3]s/. %[1]s/bookworm; mkdir -p %[1]s.playbooks
printf 'state_dir: %%s\nplaybook_dir: %%s\n' %[1]s %[1]s.playbooks > %[1]s.yaml
if [ "${1-}" = -services ]; then
	cp %[5]s/postgres.yaml %[5]s/redis.yaml %[1]s.playbooks
	command -v podman >/dev/null || { apt-get update && apt-get install -y --no-install-recommends podman runc catatonit; } >/tmp/apt.log 2>&1 || { cat /tmp/apt.log; exit 1; }
	printf '[containers]\npids_limit = 0\n' >/etc/containers/containers.conf
fi
exec %[4]s/bench -driver %[4]s/nspawn-runner -config %[1]s.yaml -state %[1]s "$@" </dev/null`, state, on.fs, hostBase, hostBuild, hostPlaybooks)
		cmd := lab.Command(ctx, append([]string{"bash", "-c", script, "bash"}, args...)...)
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Run(); err != nil {
			return errors.Join(fmt.Errorf("bench on %s: %w", on.backend, err), lab.Stop())
		}
	}
	return lab.Stop()
}
