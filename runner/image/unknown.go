package image

import (
	"fmt"
	"slices"
	"strings"
)

// UnknownError says that there is no image of a name, and which there are.
type UnknownError struct {
	Name  string
	Known []string // the names nearest to Name first
}

func (e *UnknownError) Error() string {
	if len(e.Known) == 0 {
		return fmt.Sprintf("image %s: there is no such image, and no other", e.Name)
	}
	return fmt.Sprintf("image %s: there is no such image; there are: %s", e.Name, strings.Join(e.Known, ", "))
}

// sortNearest sorts names by how little has to change to make them wanted.
func sortNearest(names []string, wanted string) {
	slices.SortStableFunc(names, func(a, b string) int {
		return distance(a, wanted) - distance(b, wanted)
	})
}

// distance counts the letters to insert, delete or replace to turn a into b
// (Levenshtein).
func distance(a, b string) int {
	// row[j] is the distance of what was read of a to the first j bytes of b.
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
