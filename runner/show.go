package runner

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"nspawn-runner/runner/image"
	"nspawn-runner/runner/storage"
)

// ChrootList prints the images: NAME PATH a line, playbooks without a chroot
// too, or all that is known of them as JSON. With long it prints a table of
// their generations.
func (h *Host) ChrootList(ctx context.Context, long, asJSON bool) error {
	images, err := h.images().List()
	if err != nil {
		return err
	}
	if long {
		return h.listLong(ctx, images, asJSON)
	}
	if !asJSON {
		for _, i := range images {
			fmt.Fprintf(h.Stdout, "%s %s\n", i.Name, i.Path)
		}
		return nil
	}
	rows := []imageRow{}
	for _, i := range images {
		rows = append(rows, h.imageRow(i))
	}
	return h.printJSON(rows)
}

// imageRow is an image as JSON.
type imageRow struct {
	Name       string `json:"name"`
	Path       string `json:"path"`
	Exists     bool   `json:"exists"`
	Generation string `json:"generation,omitempty"`
	Playbook   string `json:"playbook,omitempty"`
}

func (h *Host) imageRow(i image.Image) imageRow {
	r := imageRow{Name: i.Name, Path: i.Path, Exists: i.Exists, Playbook: i.Playbook}
	if generation, err := h.images().Current(i.Name); err == nil {
		r.Generation = generation.Name
	}
	return r
}

// generationRow is all that is known of a generation.
type generationRow struct {
	Generation string `json:"generation"`
	Path       string `json:"path"`
	Current    bool   `json:"current"`
	image.Record
	// Exclusive is how much of Bytes no other tree shares, on btrfs; elsewhere
	// it is -1.
	Exclusive int64    `json:"exclusive_bytes"`
	Jobs      []string `json:"jobs"` // ids of the machines that run on it
}

// imageRowLong is all that is known of an image, but not what is in it.
type imageRowLong struct {
	imageRow
	PlaybookState string          `json:"playbook_state"`
	Stale         bool            `json:"stale"`                  // its last maintenance is longer ago than max_age
	FailedBuild   string          `json:"failed_build,omitempty"` // where the tree of one lies
	Generations   []generationRow `json:"generations"`
}

// What a current generation's record says of the image's playbook.
const (
	playbookNone    = "none"    // the image has no playbook
	playbookRan     = "ran"     // as it is now
	playbookWaiting = "waiting" // it is newer, or never ran
	playbookUnknown = "unknown" // there is no record
)

// look collects what is known of an image.
func (h *Host) look(ctx context.Context, i image.Image) (imageRowLong, error) {
	store := h.images()
	long := imageRowLong{imageRow: h.imageRow(i), PlaybookState: playbookNone, Generations: []generationRow{}}
	generations, err := store.Generations(i.Name)
	if err != nil {
		return long, err
	}
	machines, err := h.machines().Records()
	if err != nil {
		return long, err
	}
	var ran image.Record
	for _, generation := range generations {
		record, err := store.Record(generation)
		if err != nil {
			return long, err
		}
		if record.Bytes == 0 {
			if record.Bytes, err = storage.Usage(ctx, generation.Path); err != nil {
				return long, err
			}
		}
		exclusive, known := storage.Exclusive(ctx, generation.Path)
		if !known {
			exclusive = -1
		}
		row := generationRow{generation.Name, generation.Path, generation.Name == long.Generation, record, exclusive, []string{}}
		for _, m := range machines {
			if m.Generation == generation.Name {
				row.Jobs = append(row.Jobs, m.ID)
			}
		}
		if row.Current {
			ran = record
		}
		long.Generations = append(long.Generations, row)
	}
	if i.Playbook != "" {
		long.PlaybookState = playbookState(i, ran)
	}
	if settings, err := h.imageConfig(i.Name); err == nil { // a bad playbook is for others to report
		long.Stale = stale(ran, settings.MaxAge)
	}
	if failed, err := store.Failed(i.Name); err == nil {
		long.FailedBuild = failed
	}
	return long, nil
}

// playbookState says whether the playbook that ran is the one that is there.
func playbookState(i image.Image, ran image.Record) string {
	book, err := i.ReadPlaybook()
	switch {
	case !i.Exists:
		return playbookWaiting
	case err != nil || ran.Format == 0:
		return playbookUnknown
	case ran.Playbook != nil && ran.Playbook.SHA256 == book.SHA256:
		return playbookRan
	}
	return playbookWaiting
}

// listLong prints a line for each generation, and one for each image without any.
func (h *Host) listLong(ctx context.Context, images []image.Image, asJSON bool) error {
	if err := needRoot(); err != nil { // the state directory is closed to others
		return err
	}
	rows := []imageRowLong{}
	for _, i := range images {
		long, err := h.look(ctx, i)
		if err != nil {
			return err
		}
		rows = append(rows, long)
	}
	if asJSON {
		return h.printJSON(rows)
	}
	table := tabwriter.NewWriter(h.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "IMAGE\tGENERATION\tSTATE\tBUILT\tFROM\tSIZE\tJOBS\tPLAYBOOK")
	for _, i := range rows {
		if len(i.Generations) == 0 {
			fmt.Fprintf(table, "%s\t-\tto be created\t-\t-\t-\t-\t%s\n", i.Name, i.PlaybookState)
		}
		for _, g := range i.Generations {
			state, playbook := "", ""
			if g.Current {
				state, playbook = "current", i.PlaybookState
			}
			if g.Current && i.Stale {
				state += ", stale"
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", i.Name, filepath.Base(g.Generation), state,
				ago(g.Built), from(g.Record), size(g), len(g.Jobs), playbook)
		}
	}
	return table.Flush()
}

// from words what a generation was made of: "maintenance of bookworm, 1f0c2d3e".
func from(r image.Record) string {
	if r.Format == 0 {
		return "unknown"
	}
	text := r.How
	if r.Suite != "" {
		text += " of " + r.Suite
	}
	if r.Playbook != nil {
		text += ", playbook " + short(r.Playbook.SHA256)
	}
	return text
}

// short is as much of a hash as people compare.
func short(hash string) string { return hash[:min(len(hash), 8)] }

// size words for people how much a generation takes, and how much of that is its
// own, where it shares some.
func size(g generationRow) string {
	text := fmt.Sprintf("%d MB", (g.Bytes+500_000)/1_000_000)
	if g.Exclusive >= 0 {
		text += fmt.Sprintf(" (own %d)", (g.Exclusive+500_000)/1_000_000)
	}
	return text
}

// shown is an image with what is in its current generation.
type shown struct {
	imageRowLong
	Release  string `json:"release,omitempty"`
	Packages int    `json:"packages"`
}

// ChrootShow prints what is known of one image.
func (h *Host) ChrootShow(ctx context.Context, name string, asJSON bool) error {
	if err := h.needImages(name); err != nil {
		return err
	}
	store := h.images()
	known, err := store.Get(name)
	if err != nil {
		return err
	}
	s := shown{}
	if s.imageRowLong, err = h.look(ctx, known); err != nil {
		return err
	}
	if known.Exists {
		current, err := store.Current(name)
		if err != nil {
			return err
		}
		packages, err := image.Packages(current.Path)
		if err != nil {
			return fmt.Errorf("image %s: %w", name, err)
		}
		s.Packages = len(packages)
		if s.Release, err = image.Release(current.Path); err != nil {
			return fmt.Errorf("image %s: %w", name, err)
		}
	}
	if asJSON {
		return h.printJSON(s)
	}
	return h.printShown(s)
}

func (h *Host) printShown(s shown) error {
	table := tabwriter.NewWriter(h.Stdout, 0, 0, 2, ' ', 0)
	line := func(key, format string, args ...any) {
		fmt.Fprintf(table, key+"\t"+format+"\n", args...)
	}
	line("image:", "%s", s.Name)
	if s.Playbook == "" {
		line("playbook:", "none")
	} else {
		line("playbook:", "%s (%s)", s.Playbook, map[string]string{
			playbookRan:     "as it ran",
			playbookWaiting: "waits for a maintenance",
			playbookUnknown: "not known whether it ran",
		}[s.PlaybookState])
	}
	if s.FailedBuild != "" {
		line("failed build:", "chroot-login --failed %s opens its tree", s.Name)
	}
	if !s.Exists {
		line("chroot:", "none yet: chroot-create or chroot-maintenance makes it")
		return table.Flush()
	}
	line("release:", "%s", s.Release)
	line("packages:", "%d", s.Packages)
	for _, g := range s.Generations {
		notes := []string{}
		if g.Current {
			notes = append(notes, "current")
		}
		if g.Current && s.Stale {
			notes = append(notes, "stale")
		}
		notes = append(notes, "built "+ago(g.Built), from(g.Record), size(g))
		if !g.Maintained.IsZero() {
			notes = append(notes, "maintained "+ago(g.Maintained))
		}
		if len(g.Jobs) > 0 {
			notes = append(notes, "used by "+strings.Join(g.Jobs, " "))
		}
		line("generation:", "%s: %s", filepath.Base(g.Generation), strings.Join(notes, "; "))
	}
	if current := slices.IndexFunc(s.Generations, func(g generationRow) bool { return g.Current }); current >= 0 {
		g := s.Generations[current]
		line("path:", "%s", g.Path)
		if g.Playbook != nil {
			line("playbook that ran:", "sha256 %s", g.Playbook.SHA256)
		}
		if g.Why != "" {
			line("last change:", "%s", g.Why)
		}
	}
	return table.Flush()
}

// ChrootDiff prints which packages an image's current generation has that the
// one before it had not, and the other way round.
func (h *Host) ChrootDiff(name string, asJSON bool) error {
	if err := h.needImages(name); err != nil {
		return err
	}
	store := h.images()
	now, err := store.Current(name)
	if err != nil {
		return err
	}
	was, err := store.Previous(name, now)
	if errors.Is(err, image.ErrNothingOlder) {
		return fmt.Errorf("image %s: there is no older generation to compare with", name)
	}
	if err != nil {
		return err
	}
	before, err := image.Packages(was.Path)
	if err != nil {
		return fmt.Errorf("generation %s: %w", was.Name, err)
	}
	after, err := image.Packages(now.Path)
	if err != nil {
		return fmt.Errorf("generation %s: %w", now.Name, err)
	}
	changes := image.ComparePackages(before, after)
	if asJSON {
		return h.printJSON(struct {
			Image   string                `json:"image"`
			Before  string                `json:"before"`
			After   string                `json:"after"`
			Changes []image.PackageChange `json:"changes"`
		}{name, was.Name, now.Name, changes})
	}
	h.say("%s: from generation %s to %s: %d packages differ", name, was.Name, now.Name, len(changes))
	for _, c := range changes {
		switch {
		case c.Before == "":
			fmt.Fprintf(h.Stdout, "+ %s %s\n", c.Package, c.After)
		case c.After == "":
			fmt.Fprintf(h.Stdout, "- %s %s\n", c.Package, c.Before)
		default:
			fmt.Fprintf(h.Stdout, "  %s %s -> %s\n", c.Package, c.Before, c.After)
		}
	}
	return nil
}
