package packaging

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write debian/copyright")

// copyrightHead is what debian/copyright says of our own files.
const copyrightHead = `Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: nspawn-runner
Comment:
 The paragraphs of vendor/ are made of the licences of the modules:
 go test ./packaging -update
 .
 The program also contains parts of the standard library of Go, which has the
 copyright and the licence of vendor/golang.org/x/sys.

Files: *
Copyright: 2026 The developers of nspawn-runner
License: GPL-3
 On Debian systems, the text of the license is in
 /usr/share/common-licenses/GPL-3.
`

func TestTheCopyrightFileNamesEachModuleAndItsLicence(t *testing.T) {
	t.Chdir("..")
	dir := t.TempDir()
	if _, err := Source(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	want := copyrightHead + paragraphs(t, filepath.Join(dir, "vendor"))
	const path = "debian/copyright"
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%v: %s differs from the licences of the modules; go test ./packaging -update writes it", err, path)
	}
}

// paragraphs are those of modules, one for those of the same licence and copyright.
func paragraphs(t *testing.T, vendor string) string {
	t.Helper()
	files := map[string][]string{} // by what the paragraph says of them
	var all []string
	for _, module := range vendored(t, vendor) {
		said := licence(t, filepath.Join(vendor, module))
		if files[said] == nil {
			all = append(all, said)
		}
		files[said] = append(files[said], "vendor/"+module+"/*")
	}
	var out strings.Builder
	for _, said := range all {
		fmt.Fprintf(&out, "\nFiles: %s\n%s", strings.Join(files[said], "\n "), said)
	}
	return out.String()
}

// vendored are the modules of which there are packages in vendor/.
func vendored(t *testing.T, vendor string) (modules []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(vendor, "modules.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for part := range strings.SplitSeq("\n"+string(text), "\n# ") {
		module, rest, _ := strings.Cut(part, " ")
		if regexp.MustCompile(`(?m)^[^#\s]+$`).MatchString(strings.Join(strings.Split(rest, "\n")[1:], "\n")) {
			modules = append(modules, module)
		}
	}
	if len(modules) < 15 {
		t.Fatalf("%q in %s", modules, text)
	}
	return modules
}

// licence is what the paragraph of a module says: its copyright, its licence, its notice.
func licence(t *testing.T, dir string) string {
	t.Helper()
	var text []byte
	for _, name := range []string{"LICENSE", "LICENSE.txt", "LICENSE.md", "COPYING"} {
		if found, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
			text = found
			break
		}
	}
	notice, _ := os.ReadFile(filepath.Join(dir, "NOTICE"))
	name, ok := licenceName(string(text))
	if !ok {
		t.Fatalf("%s: what is its licence?", dir)
	}
	body := apache.ReplaceAllString(string(text), "The Apache License, Version 2.0. On Debian systems, its text is in\n/usr/share/common-licenses/Apache-2.0.")
	if name == "Apache-2.0" {
		body = "On Debian systems, the text of the license is in\n/usr/share/common-licenses/Apache-2.0."
	}
	said := "Copyright: " + strings.Join(holders(string(text)+string(notice)), "\n ") + "\nLicense: " + name + "\n" + indented(body)
	if len(notice) > 0 {
		said += "Comment:\n" + indented("Its NOTICE:\n\n"+string(notice))
	}
	return said
}

// apache is the text of a licence that Debian's copyright files refer to.
var apache = regexp.MustCompile(`(?s)Apache License\s+Version 2\.0, January 2004.*?limitations under the License\.`)

// holders are who the lines of copyright in a licence name, each with its years.
func holders(text string) (all []string) {
	for _, line := range regexp.MustCompile(`(?mi)^[>\s]*Copyright (?:\(c\)|©)?\s*(\d{4}.*|the .*|20.*)$`).FindAllStringSubmatch(text, -1) {
		holder := strings.TrimSuffix(strings.TrimSpace(line[1]), " All rights reserved.")
		if !slices.Contains(all, holder) {
			all = append(all, holder)
		}
	}
	if all == nil {
		all = []string{"its authors"}
	}
	return all
}

// licenceName is the name of a licence in a copyright file, by its words.
func licenceName(text string) (name string, ok bool) {
	text = strings.Join(strings.Fields(strings.ReplaceAll(text, ">", " ")), " ")
	var names []string
	switch {
	case !strings.Contains(text, "Redistribution and use in source and binary forms"):
	case regexp.MustCompile("(?i)neither the names? of").MatchString(text):
		names = append(names, "BSD-3-clause")
	default:
		names = append(names, "BSD-2-clause")
	}
	if strings.Contains(text, "Permission is hereby granted, free of charge") {
		names = append(names, "Expat")
	}
	if strings.Contains(text, "Apache License") {
		names = append(names, "Apache-2.0")
	}
	return strings.Join(names, " and "), names != nil
}

// indented is a text as it stands in a field: deb-control(5).
func indented(text string) string {
	var out strings.Builder
	for line := range strings.Lines(strings.TrimSpace(text)) {
		if line = strings.TrimRight(line, " \t\n"); line == "" {
			line = "."
		}
		out.WriteString(" " + line + "\n")
	}
	return out.String()
}
