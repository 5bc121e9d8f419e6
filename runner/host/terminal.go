package host

import (
	"os"

	"golang.org/x/term"
)

// IsTerminal says whether a stream, if it is a file at all, is a terminal.
func IsTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}
