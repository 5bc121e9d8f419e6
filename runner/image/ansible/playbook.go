package ansible

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Playbook is what nspawn-runner itself reads in an image's playbook; all the
// rest is ansible's.
type Playbook struct {
	Path   string
	SHA256 string // of the file, in hex
	// Settings are the variables of the first play whose names begin with
	// nspawn_runner_, by their full names, as they stand in the file. What
	// they mean is for package config to say.
	Settings map[string]yaml.Node
	// Warnings are what is odd in the playbook but no error.
	Warnings []string

	// Foreign says why the file is not a playbook; empty if it is one.
	Foreign string
	// Elsewhere says what a play does in place of changing the image, if no play changes
	// the image.
	Elsewhere string
	// Beside says that the file only lies beside playbooks, and no image is to be made of
	// it: it is not a playbook, or is encrypted, or only imports others.
	Beside bool

	empty bool // there is nothing in it that ansible could run
}

// HasPlays says whether there is something for ansible to run.
func (b Playbook) HasPlays() bool { return b.Path != "" && !b.empty }

// ReadPlaybook reads a playbook. Errors name the file and, where it is
// malformed, the line.
func ReadPlaybook(path string) (Playbook, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		var reason *fs.PathError
		if errors.As(err, &reason) {
			err = reason.Err // the path is in our message already
		}
		return Playbook{}, fmt.Errorf("read playbook %s: %w", path, err)
	}
	book, err := parsePlaybook(path, text)
	book.SHA256 = fmt.Sprintf("%x", sha256.Sum256(text))
	return book, err
}

// parsePlaybook follows the original in what it forgives: a playbook that is
// empty or no list of plays has no settings, and only the first play counts, behind
// what is imported without settings.
func parsePlaybook(path string, text []byte) (Playbook, error) {
	book := Playbook{Path: path, Settings: map[string]yaml.Node{}}
	warn := func(text string) { book.Warnings = append(book.Warnings, "playbook "+path+": "+text) }

	plays, err := onlyDocument(path, text)
	if err != nil {
		return Playbook{}, err
	}
	switch {
	case plays == nil:
		book.empty = true
		warn("is empty")
		return book, nil
	case isEncrypted(plays):
		book.Beside = true
		warn("is encrypted, so its nspawn_runner_ variables do not count")
		return book, nil
	case plays.Kind == yaml.SequenceNode && len(plays.Content) == 0:
		book.empty = true
		warn("has no plays")
		return book, nil
	}
	if book.Foreign = foreign(plays); book.Foreign != "" {
		book.Beside = true
		warn("is not a playbook: " + book.Foreign)
		return book, nil
	}
	var own []*yaml.Node // plays, and imports with settings
	for _, play := range plays.Content {
		if !isImport(play) || len(settingsOf(play)) > 0 {
			own = append(own, play)
		}
	}
	if len(own) > 1 {
		warn("has several plays; nspawn_runner_ variables count in the first one only")
	}
	if own == nil {
		book.Beside = true
		return book, nil
	}
	book.Settings = settingsOf(own[0])
	missed := 0
	for _, play := range plays.Content {
		if where := elsewhere(follow(play)); where != "" {
			warn(where)
			missed++
			book.Elsewhere = where
		}
	}
	if missed < len(plays.Content) {
		book.Elsewhere = ""
	}
	return book, nil
}

// onlyDocument is the root of the one document that is in a file, nil if there is nothing in it.
func onlyDocument(path string, text []byte) (*yaml.Node, error) {
	var document, another yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, malformed(path, text, err)
	}
	switch err := decoder.Decode(&another); {
	case err == nil:
		return nil, fmt.Errorf("playbook %s:%d: a second YAML document begins here; ansible reads only one", path, another.Line)
	case !errors.Is(err, io.EOF):
		return nil, malformed(path, text, err)
	}
	root := document.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil, nil
	}
	return root, nil
}

// otherHost is a pattern of hosts that is a plain name: none is the image's.
var otherHost = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)

// elsewhere says of a play that it does nothing in the image, or "".
func elsewhere(play *yaml.Node) string {
	if play.Kind != yaml.MappingNode {
		return ""
	}
	for i := 0; i+1 < len(play.Content); i += 2 {
		hosts := follow(play.Content[i+1]).Value
		switch {
		case play.Content[i].Value != "hosts" || hosts == "all" || hosts == "ungrouped" || !otherHost.MatchString(hosts):
		case hosts == "localhost" || strings.HasPrefix(hosts, "127."):
			return "a play with hosts: " + hosts + " changes this host, not the image; want hosts: all"
		default:
			return "a play with hosts: " + hosts + " does nothing, as no host is called so; want hosts: all"
		}
	}
	return ""
}

var yamlPrefix = regexp.MustCompile(`^yaml: (line \d+: )?`)

// malformed words an error of the YAML parser as FILE:LINE: REASON.
func malformed(path string, text []byte, err error) error {
	return fmt.Errorf("playbook %s:%d: %s", path, badLine(text), yamlPrefix.ReplaceAllString(err.Error(), ""))
}

// badLine returns the line at which text stops being YAML: the one behind the
// longest beginning that is. The parser's own answer is the line at which the
// block begins that it was reading, or one beside that.
func badLine(text []byte) int {
	lines := bytes.SplitAfter(text, []byte("\n"))
	end := len(text)
	for i, line := range slices.Backward(lines) {
		end -= len(line)
		if isYAML(text[:end]) {
			return i + 1
		}
	}
	return 1
}

func isYAML(text []byte) bool {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	for {
		if err := decoder.Decode(new(yaml.Node)); err != nil {
			return errors.Is(err, io.EOF)
		}
	}
}
