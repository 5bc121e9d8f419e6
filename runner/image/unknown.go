package image

import (
	"fmt"
	"strings"
)

// UnknownError says that there is no image of a name, and which there are.
type UnknownError struct {
	Name  string
	Known []string // the names nearest to Name first
	// Foreign says that there is a file of that name, and why it makes no image.
	Foreign string
}

func (e *UnknownError) Error() string {
	text := fmt.Sprintf("image %s: there is no such image", e.Name)
	if e.Foreign != "" {
		text += ", and " + e.Foreign
	}
	if len(e.Known) == 0 {
		return text + ", and no other"
	}
	return fmt.Sprintf("%s; there are: %s", text, strings.Join(e.Known, ", "))
}
