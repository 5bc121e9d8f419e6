package metrics

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Write writes numbers in Prometheus' text format, version 0.0.4, without time stamps, which
// node_exporter refuses. Families without numbers are left out.
func Write(out io.Writer, families []*Family, numbers []Number) error {
	var text bytes.Buffer
	for _, f := range families {
		begun := false
		for _, number := range numbers {
			if number.Family != f.Name {
				continue
			}
			if !begun {
				fmt.Fprintf(&text, "# HELP %s%s %s\n# TYPE %s%s %s\n", Prefix, f.Name, escapeHelp.Replace(f.Help), Prefix, f.Name, f.Kind)
				begun = true
			}
			f.write(&text, number)
		}
	}
	_, err := out.Write(text.Bytes())
	return err
}

func (f *Family) write(text *bytes.Buffer, number Number) {
	line := func(suffix, more string, value string) {
		fmt.Fprintf(text, "%s%s%s%s %s\n", Prefix, f.Name, suffix, f.labels(number.Labels, more), value)
	}
	if f.Kind != Histogram {
		line("", "", format(number.Value))
		return
	}
	count := uint64(0)
	for i, in := range number.Counts {
		count += in
		bound := "+Inf"
		if i < len(f.Buckets) {
			bound = format(f.Buckets[i])
		}
		line("_bucket", `le="`+bound+`"`, strconv.FormatUint(count, 10))
	}
	line("_sum", "", format(number.Value))
	line("_count", "", strconv.FormatUint(count, 10))
}

// labels are the family's labels with their values, and one more.
func (f *Family) labels(values []string, more string) string {
	var words []string
	for i, value := range values {
		words = append(words, f.Labels[i].Name+`="`+escapeLabel.Replace(strings.ToValidUTF8(value, "?"))+`"`)
	}
	if more != "" {
		words = append(words, more)
	}
	if words == nil {
		return ""
	}
	return "{" + strings.Join(words, ",") + "}"
}

var (
	escapeHelp  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	escapeLabel = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

func format(value float64) string { return strconv.FormatFloat(value, 'g', -1, 64) }
