package suite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"nspawn-runner/test/debian"
	"nspawn-runner/test/harness"
)

// hostDebian is where a lab sees the trees of the images that run what Debians run.
const hostDebian = "/opt/debian"

// Debian runs in a lab of a release, "" for bookworm, the programs that docs/debian.md says
// run in machines, and prints a line for each. run picks some, as for [Lab].
func Debian(release, run string) func(*Suite, context.Context) error {
	return func(s *Suite, ctx context.Context) error {
		var lab *harness.Lab
		err := s.phase("debian: set-up", func() (err error) {
			if err := harness.Need(ctx, s.Out, harness.LabPackages...); err != nil {
				return err
			}
			trees, err := s.debianTrees(ctx, release)
			if err != nil {
				return err
			}
			lab, err = s.startLab(ctx, release, trees)
			return err
		})
		if err != nil {
			return err
		}
		tests := s.phase("debian: what runs in a machine", func() error {
			argv := testCommand("lab", "", "^TestWhatRunsOnDebian"+run, "NSPAWN_RUNNER_DEBIAN="+hostDebian)
			return s.tests(&reader{where: "debian"}, lab.Command(ctx, argv...))
		})
		return errors.Join(tests, s.phase("debian: stop", lab.Stop))
	}
}

// DebianVM is [Debian] in a VM of a release, whose kernel has AppArmor and all controllers of control
// groups, which a lab has not. The machines are of the same release, on overlay. group picks some, as
// "/docker" does.
func DebianVM(release, group string) func(*Suite, context.Context) error {
	image := cmp.Or(release, harness.GuestTree.Suite)
	return func(s *Suite, ctx context.Context) error {
		if !slices.Contains(debian.Images, image) {
			return fmt.Errorf("no case has images of %s", image)
		}
		options, remove, err := s.vmOptions(ctx, release)
		if err != nil {
			return err
		}
		defer remove()
		var tree string
		err = s.phase("debian: tree of "+image, func() (err error) {
			tree, err = harness.Tree(ctx, s.Out, debianTree(image))
			return err
		})
		if err != nil {
			return err
		}
		options.Disks = append(options.Disks, harness.Disk{Label: "debian", FS: "ext4", Size: 8 << 30, From: tree, Mount: filepath.Join(hostDebian, image)})
		options.Limit = time.Hour
		return s.phase("debian: what runs in a machine of a VM", func() error {
			tests := vmCommand(cut{}, []string{"^TestWhatRunsOnDebian" + cmp.Or(group, "/.*") + "/" + image + "/overlay"})
			options.Command = slices.Concat([]string{"env", "NSPAWN_RUNNER_DEBIAN=" + hostDebian}, tests)
			return s.passes(ctx, options)
		})
	}
}

// debianTrees makes the trees of the images, and that of the lab beside them: making one
// keeps one processor busy. It says where the lab is to see which.
func (s *Suite) debianTrees(ctx context.Context, release string) (map[string]string, error) {
	all, ctx := errgroup.WithContext(ctx)
	all.Go(func() error {
		_, err := harness.Tree(ctx, s.Out, harness.LabTree.Of(release))
		return err
	})
	made := make([]string, len(debian.Images))
	for i, image := range debian.Images {
		all.Go(func() (err error) {
			made[i], err = harness.Tree(ctx, s.Out, debianTree(image))
			return err
		})
	}
	if err := all.Wait(); err != nil {
		return nil, err
	}
	trees := map[string]string{}
	for i, image := range debian.Images {
		trees[made[i]] = filepath.Join(hostDebian, image)
	}
	return trees, nil
}

// debianTree is the tree of an image that holds what is to run.
func debianTree(image string) harness.Recipe {
	return harness.Recipe{
		Kind:     "debian" + image,
		Suite:    image,
		Packages: debian.Packages(image),
		Hooks:    debian.Hooks,
	}
}
