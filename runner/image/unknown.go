package image

import (
	"fmt"
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
