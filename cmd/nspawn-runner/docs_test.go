package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// commandLines are those of a document: lines of its examples, and words in backquotes.
func commandLines(page string) []string {
	var all []string
	for i, part := range strings.Split(page, "```") {
		pattern := "`nspawn-runner ([^`\n]+)`"
		if i%2 == 1 { // between fences
			pattern = `(?m)^(?:\$ |.*\| )?nspawn-runner ([^|\n]+)`
		}
		for _, found := range regexp.MustCompile(pattern).FindAllStringSubmatch(part, -1) {
			all = append(all, found[1])
		}
	}
	return all
}

func TestEachCommandLineOfTheDocumentsIsUnderstood(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatal(pages, err)
	}
	found := 0
	for _, page := range append(pages, "../../README.md", "../../SECURITY.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range commandLines(string(text)) {
			words, _, _ := strings.Cut(line, "#")
			args := strings.Fields(strings.ReplaceAll(words, "'", ""))
			called, rest, err := commands().Find(args)
			if err == nil {
				err = called.ParseFlags(rest)
			}
			if err == nil {
				err = called.ValidateArgs(called.Flags().Args())
			}
			if err != nil {
				t.Errorf("%s: nspawn-runner %s: %v", page, line, err)
			}
			found++
		}
	}
	if found < 20 {
		t.Errorf("%d command lines were found", found)
	}
}
