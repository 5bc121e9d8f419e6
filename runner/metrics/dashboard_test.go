package metrics

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// panel is what these tests read of a panel of the dashboard.
type panel struct {
	ID                         int
	Type, PluginVersion, Title string
	Description                string
	GridPos                    struct{ X, Y, W, H int }
	FieldConfig                struct {
		Overrides []struct{ Matcher struct{ ID, Options string } }
	}
	Targets []struct {
		RefID, Expr, LegendFormat string
		Datasource                struct{ UID string }
	}
	Transformations []struct {
		ID      string
		Options struct {
			IndexByName  map[string]int
			RenameByName map[string]string
		}
	}
}

func dashboard(t *testing.T) (panels []panel, text string) {
	t.Helper()
	read, err := os.ReadFile("../../packaging/grafana/nspawn-runner.json")
	if err != nil {
		t.Fatal(err)
	}
	var all struct{ Panels []panel }
	if err := json.Unmarshal(read, &all); err != nil {
		t.Fatal(err)
	}
	if len(all.Panels) < 15 {
		t.Fatalf("%d panels", len(all.Panels))
	}
	return all.Panels, string(read)
}

func TestDashboardShowsAllNumbers(t *testing.T) {
	_, text := dashboard(t)
	for _, f := range Families {
		if !regexp.MustCompile(Prefix + f.Name + `(_bucket)?\b`).MatchString(text) {
			t.Errorf("no panel shows %s", f.Name)
		}
	}
}

func TestPanelsOfTheDashboardAreWholeAndApart(t *testing.T) {
	panels, _ := dashboard(t)
	ids, cells := map[int]bool{}, map[string]string{}
	for _, p := range panels {
		if ids[p.ID] || p.Title == "" || p.Description == "" || p.PluginVersion == "" {
			t.Errorf("%d %q: its id is taken, or it lacks a title, a description or pluginVersion", p.ID, p.Title)
		}
		ids[p.ID] = true
		if p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("%s is outside of the 24 columns", p.Title)
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				cell := fmt.Sprint(x, ",", y)
				if other := cells[cell]; other != "" && other != p.Title {
					t.Fatalf("%s lies on %s", p.Title, other)
				}
				cells[cell] = p.Title
			}
		}
	}
}

func TestQueriesOfTheDashboardAreOfTheChosenHosts(t *testing.T) {
	panels, _ := dashboard(t)
	selector := regexp.MustCompile(`\b(` + Prefix + `|node_|ALERTS)\w*(\{[^}]*\})?`)
	for _, p := range panels {
		refs := map[string]bool{}
		for _, target := range p.Targets {
			if refs[target.RefID] || target.Datasource.UID != "${datasource}" {
				t.Errorf("%s: query %s has a name that is taken, or a data source of its own", p.Title, target.RefID)
			}
			refs[target.RefID] = true
			for _, series := range selector.FindAllStringSubmatch(target.Expr, -1) {
				if !strings.Contains(series[2], `instance=~"$instance"`) {
					t.Errorf("%s: %s is of all hosts", p.Title, series[0])
				}
			}
		}
		if len(refs) == 0 {
			t.Errorf("%s has no query", p.Title)
		}
	}
}

// Grafana draws nothing at all in a panel of which one series is not a number: that of an
// image without jobs, for example.
func TestQueriesOfTheDashboardLeaveOutWhatIsNotANumber(t *testing.T) {
	panels, _ := dashboard(t)
	for _, p := range panels {
		for _, target := range p.Targets {
			// 0 / 0, and quantiles of nothing.
			if regexp.MustCompile(`histogram_quantile|/ sum\(`).MatchString(target.Expr) && !strings.HasSuffix(target.Expr, " >= 0") {
				t.Errorf("%s: %s may be NaN", p.Title, target.Expr)
			}
		}
	}
}

// An override whose name matches nothing does nothing, without a word.
func TestOverridesOfTheDashboardMatchSomething(t *testing.T) {
	panels, _ := dashboard(t)
	for _, p := range panels {
		names := map[string]bool{}
		for _, target := range p.Targets {
			for _, name := range legends(target.LegendFormat) {
				names[name] = true
			}
		}
		for _, transformation := range p.Transformations {
			for column := range transformation.Options.IndexByName {
				if renamed, ok := transformation.Options.RenameByName[column]; ok {
					column = renamed
				}
				names[column] = true
			}
		}
		for _, override := range p.FieldConfig.Overrides {
			matches := func(name string) bool { return name == override.Matcher.Options }
			if override.Matcher.ID == "byRegexp" {
				pattern := regexp.MustCompile(strings.Trim(override.Matcher.Options, "/"))
				matches = pattern.MatchString
			}
			if !slices.ContainsFunc(slices.Collect(maps.Keys(names)), matches) {
				t.Errorf("%s: %q matches none of %v", p.Title, override.Matcher.Options, slices.Sorted(maps.Keys(names)))
			}
		}
	}
}

// legends are all names that a format of a legend may give, of labels with declared values.
func legends(format string) []string {
	names := []string{format}
	for _, f := range Families {
		for _, label := range f.Labels {
			for _, name := range names {
				if place := "{{" + label.Name + "}}"; strings.Contains(name, place) {
					for _, value := range label.Values {
						names = append(names, strings.ReplaceAll(name, place, value))
					}
				}
			}
		}
	}
	return names
}
