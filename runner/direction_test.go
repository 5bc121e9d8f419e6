package runner

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Inside a package files refer downwards only: then each can be read with those below it.
func TestFilesOfAPackageDoNotReferToEachOtherInCircles(t *testing.T) {
	type listed struct {
		ImportPath, Dir, Export string
		GoFiles                 []string
	}
	cmd := exec.Command("go", "list", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles", "nspawn-runner/runner/...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var ours []listed
	exports := map[string]string{}
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		exports[p.ImportPath] = p.Export
		if strings.HasPrefix(p.ImportPath, "nspawn-runner/") {
			ours = append(ours, p)
		}
	}
	if len(ours) < 10 {
		t.Fatalf("only %d packages", len(ours))
	}
	for _, p := range ours {
		name := strings.TrimPrefix(p.ImportPath, "nspawn-runner/")
		circle := circleIn(t, p.ImportPath, p.Dir, p.GoFiles, exports)
		if circle != nil {
			t.Errorf("files of package %s refer to each other in a circle:\n\t%s", name, strings.Join(circle, "\n\t"))
		}
	}
}

// circleIn finds files of a package that refer to each other in a circle. exports are the
// files with compiled packages.
func circleIn(t *testing.T, path, dir string, names []string, exports map[string]string) []string {
	t.Helper()
	set := token.NewFileSet()
	var files []*ast.File
	for _, name := range names {
		file, err := parser.ParseFile(set, filepath.Join(dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	compiled := importer.ForCompiler(set, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
	info := types.Info{Uses: map[*ast.Ident]types.Object{}}
	pkg, err := (&types.Config{Importer: compiled}).Check(path, set, files, &info)
	if err != nil {
		t.Fatal(err)
	}
	refers := map[string]map[string]string{} // which file to which, by what
	for at, object := range info.Uses {
		if object.Pkg() != pkg || object.Parent() != nil && object.Parent() != pkg.Scope() {
			continue // another package's, or a variable of a function
		}
		from, to := filepath.Base(set.Position(at.Pos()).Filename), filepath.Base(set.Position(object.Pos()).Filename)
		if from != to {
			if refers[from] == nil {
				refers[from] = map[string]string{}
			}
			refers[from][to] = object.Name()
		}
	}
	return circle(refers)
}

// circle finds a way from a file back to itself, as lines that say by what each refers to
// the next.
func circle(refers map[string]map[string]string) []string {
	done := map[string]bool{}
	var way []string
	var visit func(string) []string
	visit = func(file string) []string {
		if at := slices.Index(way, file); at >= 0 {
			var lines []string
			for i, from := range way[at:] {
				to := append(way[at:], file)[i+1]
				lines = append(lines, fmt.Sprintf("%s: %s of %s", from, refers[from][to], to))
			}
			return lines
		}
		if done[file] {
			return nil
		}
		way = append(way, file)
		for _, to := range slices.Sorted(maps.Keys(refers[file])) {
			if found := visit(to); found != nil {
				return found
			}
		}
		way = way[:len(way)-1]
		done[file] = true
		return nil
	}
	for _, file := range slices.Sorted(maps.Keys(refers)) {
		if found := visit(file); found != nil {
			return found
		}
	}
	return nil
}

func TestACircleOfFilesIsFound(t *testing.T) {
	down := map[string]map[string]string{"a": {"b": "x", "c": "y"}, "b": {"c": "z"}}
	if got := circle(down); got != nil {
		t.Errorf("%q", got)
	}
	down["c"] = map[string]string{"a": "back"}
	if got := circle(down); !slices.Equal(got, []string{"a: x of b", "b: z of c", "c: back of a"}) {
		t.Errorf("%q", got)
	}
}
