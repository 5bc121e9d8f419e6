// Package metrics counts what jobs did on this host, and writes numbers as text for
// Prometheus. There is no daemon: each stage of a job is a process of its own, which
// appends what it counts to a file. Who writes the text folds that file into totals.
//
//	families.go  the families: what numbers there are
//	metrics.go   what families and labels are
//	record.go    appends to the records, in a stage
//	fold.go      folds records into totals
//	sums.go      the numbers that are summed up
//	text.go      the text format of Prometheus
//
// Each label has a list of values that it may have, so that no job can make labels: images
// that exist, and words of this program. Job ids, projects and branches are fields of the
// journal instead.
package metrics

import "slices"

// Prefix begins the name of each number.
const Prefix = "nspawn_runner_"

// Kind is how Prometheus takes a family's numbers.
type Kind string

// The kinds of families.
const (
	Counter   Kind = "counter"
	Gauge     Kind = "gauge"
	Histogram Kind = "histogram"
)

// Label is a label of a family.
type Label struct {
	Name string
	// Values are all that it may have, Images says that it may also be any image that exists.
	Values []string
	Images bool
	// Any says that it may have any value. Only who writes the text uses such labels.
	Any bool
}

// Image is the label for images of this host.
var Image = Label{Name: "image", Images: true}

// ImageOr is Image with further values.
func ImageOr(values ...string) Label { return Label{Name: "image", Images: true, Values: values} }

// Of is a label with a list of values.
func Of(name string, values ...string) Label { return Label{Name: name, Values: values} }

// Any is a label with any value of the host, such as its kernel's version.
func Any(name string) Label { return Label{Name: name, Any: true} }

// Family is a name with its numbers, one for each combination of values of its labels.
type Family struct {
	// Name is without the prefix.
	Name, Help string
	Kind       Kind
	Labels     []Label
	// Buckets are the upper bounds of a histogram's, rising and without the infinite one.
	Buckets []float64
}

// Sample is something to add to a family: a counter grows by its value, a gauge becomes it,
// a histogram has observed it.
type Sample struct {
	Family string   `json:"n"`
	Labels []string `json:"l,omitempty"`
	Value  float64  `json:"v"`
}

// Sample makes a sample of the family, with the values of its labels in their order.
func (f *Family) Sample(value float64, labels ...string) Sample {
	return Sample{Family: f.Name, Labels: labels, Value: value}
}

// takes says whether the family may have these values of its labels, when these images
// exist.
func (f *Family) takes(labels, images []string) bool {
	if len(labels) != len(f.Labels) {
		return false
	}
	for i, value := range labels {
		label := f.Labels[i]
		if !label.Any && !slices.Contains(label.Values, value) && !(label.Images && slices.Contains(images, value)) {
			return false
		}
	}
	return true
}

// all are all combinations of values that the family's labels may have.
func (f *Family) all(images []string) (combinations [][]string) {
	combinations = [][]string{{}}
	for _, label := range f.Labels {
		values := label.Values
		if label.Images {
			values = slices.Concat(values, images)
		}
		var longer [][]string
		for _, begun := range combinations {
			for _, value := range values {
				longer = append(longer, append(slices.Clone(begun), value))
			}
		}
		combinations = longer
	}
	return combinations
}
