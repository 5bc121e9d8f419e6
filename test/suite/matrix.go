package suite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"nspawn-runner/test/harness"
)

// cell is a place in the matrix: a host of one release, an image of another, a backend.
type cell struct{ host, image, backend string }

// releases are those of hosts and of images in the matrix; backends are its third dimension.
var (
	releases = []string{"bookworm", "trixie", "sid"}
	backends = []string{"btrfs", "overlay", "tmpfs"}
)

// corners are cells that are far apart, and that no other phase has: [Lab] runs images of the
// host's own release on each backend, [Debian] also trixie's on bookworm.
var corners = []cell{{"bookworm", "sid", "overlay"}, {"sid", "bookworm", "btrfs"}, {"sid", "sid", "tmpfs"}}

// hostMatrix is where a lab of the matrix sees the trees of its images.
const hostMatrix = "/opt/matrix"

// Matrix builds images of each release and runs jobs of them, on hosts of each release and
// on each backend, and prints a table. run picks some of it: /HOST, /HOST/IMAGE or
// /HOST/IMAGE/BACKEND, of which any part may be empty.
func Matrix(run string) func(*Suite, context.Context) error {
	picks := append(strings.Split(strings.TrimPrefix(run, "/"), "/"), "", "", "")
	picked := func(i int, name string) bool { return picks[i] == "" || picks[i] == name }
	var cells []cell
	for _, host := range releases {
		for _, image := range releases {
			for _, backend := range backends {
				if picked(0, host) && picked(1, image) && picked(2, backend) {
					cells = append(cells, cell{host, image, backend})
				}
			}
		}
	}
	return func(s *Suite, ctx context.Context) error { return s.matrix(ctx, cells) }
}

// MatrixCorners is [Matrix] for the little time that each change has.
func MatrixCorners(s *Suite, ctx context.Context) error { return s.matrix(ctx, corners) }

// matrix tries cells, in one lab for each release of hosts.
func (s *Suite) matrix(ctx context.Context, cells []cell) error {
	if len(cells) == 0 {
		return errors.New("matrix: RUN=/host/image/backend picks nothing; releases are " + strings.Join(releases, ", "))
	}
	var failed error
	found := outcomes{}
	for _, host := range releases {
		its := slices.DeleteFunc(slices.Clone(cells), func(c cell) bool { return c.host != host })
		if len(its) > 0 && ctx.Err() == nil {
			failed = errors.Join(failed, s.matrixOn(ctx, host, its, found))
		}
	}
	found.write(s.Out)
	return failed
}

// matrixOn tries cells of one release of hosts.
func (s *Suite) matrixOn(ctx context.Context, host string, cells []cell, found outcomes) error {
	var lab *harness.Lab
	err := s.phase("matrix: set-up of "+host, func() (err error) {
		trees, err := s.matrixTrees(ctx, host, cells)
		if err != nil {
			return err
		}
		lab, err = s.startLab(ctx, host, trees)
		return err
	})
	if err != nil {
		return err
	}
	var patterns []string
	for _, c := range cells {
		patterns = append(patterns, fmt.Sprintf("^TestEachReleaseBuildsAndRunsOnEachBackend$/^%s$/^%s$", c.image, c.backend))
	}
	tests := s.phase("matrix: on "+host, func() error {
		argv := testCommand("lab", "", strings.Join(patterns, "|"), "NSPAWN_RUNNER_MATRIX="+hostMatrix)
		note := func(result, test, took string) {
			if parts := strings.Split(test, "/"); len(parts) == 3 {
				word := map[string]string{"PASS": "works", "FAIL": "FAILS"}[result]
				found[cell{host, parts[1], parts[2]}] = word + " " + took
			}
		}
		return s.tests(&reader{where: "matrix on " + host, each: note}, lab.Command(ctx, argv...))
	})
	return errors.Join(tests, s.phase("matrix: stop "+host, lab.Stop))
}

// matrixTrees makes the trees of cells' images and, beside them, that of their host. It says
// where the lab is to see which.
func (s *Suite) matrixTrees(ctx context.Context, host string, cells []cell) (map[string]string, error) {
	all, ctx := errgroup.WithContext(ctx)
	all.Go(func() error {
		_, err := harness.Tree(ctx, s.Out, harness.LabTree.Of(host))
		return err
	})
	made := make([]string, len(cells))
	for i, c := range cells {
		all.Go(func() (err error) {
			made[i], err = harness.Tree(ctx, s.Out, harness.BaseTree.Of(c.image))
			return err
		})
	}
	if err := all.Wait(); err != nil {
		return nil, err
	}
	trees := map[string]string{}
	for i, c := range cells {
		trees[made[i]] = filepath.Join(hostMatrix, c.image)
	}
	return trees, nil
}

// outcomes is what became of cells.
type outcomes map[cell]string

// write prints the table: a line for each image and backend, a column for each host.
func (r outcomes) write(to io.Writer) {
	fmt.Fprintf(to, "\n%-20s", "image on backend")
	for _, host := range releases {
		fmt.Fprintf(to, " %-16s", "host "+host)
	}
	fmt.Fprintln(to)
	for _, image := range releases {
		for _, backend := range backends {
			line, tried := fmt.Sprintf("%-20s", image+" on "+backend), false
			for _, host := range releases {
				found := r[cell{host, image, backend}]
				tried = tried || found != ""
				line += fmt.Sprintf(" %-16s", found)
			}
			if tried {
				fmt.Fprintln(to, strings.TrimRight(line, " "))
			}
		}
	}
}
