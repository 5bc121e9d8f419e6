package gitlab

import (
	"errors"
	"fmt"
	"strings"
)

// maxImageName bounds the name of an image, in bytes.
const maxImageName = 64

// ImageName maps the reference of an image as jobs write it to the name of an
// image here, as the Python original did: the last element of the path, then
// what follows its colon, so that debian:bookworm and
// registry.example.org/ci/base:bookworm are both bookworm.
func ImageName(reference string) (string, error) {
	refuse := func(why string) (string, error) {
		return "", fmt.Errorf("image %s: %s", quote(reference), why)
	}
	if reference == "" {
		return "", errors.New("the job names no image: set image: in .gitlab-ci.yml, or --default-image in prepare_args of the runner's config.toml")
	}
	if strings.Contains(reference, "@") {
		return refuse("digests are not supported; use the image's name")
	}
	name := reference[strings.LastIndexByte(reference, '/')+1:]
	if strings.Count(name, ":") > 2 {
		return refuse("too many colons")
	}
	name = name[strings.LastIndexByte(name, ':')+1:]
	if err := CheckImageName(name); err != nil {
		return refuse(err.Error())
	}
	return name, nil
}

// CheckImageName says what is wrong with the name of an image.
func CheckImageName(name string) error {
	switch {
	case name == "":
		return errors.New("the name is empty")
	case len(name) > maxImageName:
		return fmt.Errorf("the name is longer than %d bytes", maxImageName)
	case name[0] == '.' || name[0] == '-':
		return fmt.Errorf("a name must not begin with %q", name[0])
	}
	for _, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("._+-~", c) >= 0:
		case c < ' ' || c == 0x7f:
			return errors.New("the name has control bytes")
		default:
			return fmt.Errorf("the name has %q: want letters, digits and ._+-~", c)
		}
	}
	return nil
}
