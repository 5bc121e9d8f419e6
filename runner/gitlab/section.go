package gitlab

import (
	"fmt"
	"time"
)

// A section of a job's log is folded in GitLab's page until somebody opens it, and its
// header shows how long it took. At a terminal, its marks cannot be seen. GitLab's
// documentation calls this "custom collapsible sections".

// SectionStart is the line with which a section starts that began then. Its name is of
// letters, digits, dots, dashes and underscores, and is given again to end it.
func SectionStart(name, header string, began time.Time) string {
	return fmt.Sprintf("\x1b[0Ksection_start:%d:%s[collapsed=true]\r\x1b[0K%s", began.Unix(), name, header)
}

// SectionEnd is the line with which the section of that name ends.
func SectionEnd(name string, ended time.Time) string {
	return fmt.Sprintf("\x1b[0Ksection_end:%d:%s\r\x1b[0K", ended.Unix(), name)
}
