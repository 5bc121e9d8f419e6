//go:build generate

package main

import (
	"fmt"
	"os"

	"nspawn-runner/packaging"
	"nspawn-runner/packaging/texts"
)

// Built to make a package, the program writes what ships with it, for the directory of
// programs that it is given, into another directory: generate PROGRAMS DIR.
func init() {
	if len(os.Args) != 4 || os.Args[1] != "generate" {
		return
	}
	if err := texts.Write(commands(), packaging.Layout{Programs: os.Args[2]}, os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
	os.Exit(0)
}
