package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"nspawn-runner/runner/age"
	"nspawn-runner/runner/gitlab"
	"nspawn-runner/runner/image"
	"nspawn-runner/runner/job"
	"nspawn-runner/runner/machine"
	"nspawn-runner/runner/packages"
)

// What the doctor asks of the images, and of what makes them.

func (d Doctor) checkPrograms(context.Context) []Finding {
	needed := []packages.Package{packages.Bootstrap(d.Jobs.Config.Bootstrap), packages.Ansible}
	if missing := packages.Missing(needed); missing != nil {
		return isBad(packages.Install(missing...), "no %s: %s", strings.Join(packages.Names(missing), " and no "), missing[0].Why)
	}
	return isGood("%s, %s", needed[0].Find(), needed[1].Find())
}

func (d Doctor) checkPlaybooks(context.Context) []Finding {
	images, err := d.Jobs.Images.List()
	if err != nil {
		return isBad("", "%v", err)
	}
	var all []Finding
	valid := 0
	for _, i := range images {
		if i.Playbook == "" {
			continue
		}
		if err := gitlab.CheckImageName(i.Name); err != nil {
			all = append(all, isBad("rename it: no job can name such an image", "playbook %s: %v", i.Playbook, err)...)
			continue
		}
		book, err := i.ReadPlaybook()
		if err == nil {
			_, err = d.Jobs.Config.ForImage(book.Path, book.Settings)
		}
		if err != nil {
			all = append(all, isBad("correct it: jobs of image "+i.Name+" fail", "%v", err)...)
			continue
		}
		valid++
		for _, text := range book.Warnings {
			all = append(all, isWarning("", "%s", text)...)
		}
		all = append(all, lookAtOwner(book.Path)...)
	}
	switch {
	case valid > 0:
		all = append(isGood("%d can be read", valid), all...)
	case all == nil:
		all = isWarning("copy one, like "+examplePlaybook(examples)+", to "+d.Jobs.Config.PlaybookDir, "there are no playbooks")
	}
	return append(all, lookAtOwner(d.Jobs.Config.PlaybookDir)...)
}

// lookAtOwner warns of a playbook, or of a directory of playbooks, that other users can
// change: maintenance runs playbooks as root.
func lookAtOwner(path string) []Finding {
	info, err := os.Stat(path)
	if err != nil {
		return nil // there is none, or others say so
	}
	mode, stat := info.Mode().Perm(), info.Sys().(*syscall.Stat_t)
	if stat.Uid == 0 && mode&0o002 == 0 && (stat.Gid == 0 || mode&0o020 == 0) {
		return nil
	}
	return isWarning("chown root:root "+path+"; chmod go-w "+path,
		"other users can change %s (owner %d:%d, mode %#o), and maintenance runs playbooks as root", path, stat.Uid, stat.Gid, mode)
}

// examples is where Debian's package has examples of playbooks.
const examples = "/usr/share/doc/nspawn-runner/examples"

// examplePlaybook is a playbook to copy: of a directory of examples, else of the source.
func examplePlaybook(examples string) string {
	path := filepath.Join(examples, "bookworm.yaml")
	if _, err := os.Stat(path); err != nil {
		return "playbooks/bookworm.yaml of the source"
	}
	return path
}

func (d Doctor) checkImages(context.Context) []Finding {
	images, err := d.Jobs.Images.List()
	if err != nil {
		return isBad("", "%v", err)
	}
	if len(images) == 0 {
		return isBad("put a playbook into "+d.Jobs.Config.PlaybookDir+", then run nspawn-runner chroot-maintenance", "there are no images, so no job can run")
	}
	var all []Finding
	for _, i := range images {
		all = append(all, d.checkImage(i)...)
	}
	return all
}

// checkImage looks whether machines can be started from an image, and then what
// else there is to say of it.
func (d Doctor) checkImage(i image.Image) []Finding {
	maintain := "nspawn-runner chroot-maintenance " + i.Name
	var all []Finding
	store := d.Jobs.Images
	if _, err := store.Failed(i.Name); err == nil {
		all = isWarning("nspawn-runner chroot-login --failed "+i.Name+" opens its tree", "%s: its last build failed", i.Name)
	}
	generation, err := store.Current(i.Name)
	if errors.Is(err, image.ErrNoChroot) {
		if settings, err := d.Jobs.Settings(i.Name); err == nil && settings.ChrootSuite == "" {
			maintain = "nspawn-runner chroot-create --suite SUITE " + i.Name
		}
		return append(isBad(maintain, "%s: it has no chroot yet", i.Name), all...)
	}
	if err != nil {
		return append(isBad("", "%v", err), all...)
	}
	settings, err := d.Jobs.Settings(i.Name)
	if err != nil {
		return all // see checkPlaybooks
	}
	if err := d.Jobs.CheckMachines(i.Name, generation, settings); err != nil {
		return append(isBad("", "%v", err), all...)
	}
	record, err := store.Record(generation)
	if err != nil {
		return append(isWarning("", "%v", err), all...)
	}
	if record.OtherSuite(settings.ChrootSuite) {
		all = append(all, isWarning("nspawn-runner chroot-maintenance --recreate "+i.Name, "%s: it was made of %s, and its playbook says %s", i.Name, record.Suite, settings.ChrootSuite)...)
	}
	switch {
	case record.Stale(settings.MaxAge):
		all = append(all, isWarning(maintain, "%s: it was maintained %s (max_age %s)", i.Name, age.Ago(record.LastMaintained()), age.Days(settings.MaxAge))...)
	case i.Playbook != "" && i.PlaybookState(record) == image.PlaybookWaiting:
		all = append(all, isWarning(maintain, "%s: its playbook is newer than its chroot", i.Name)...)
	}
	if all == nil {
		return isGood("%s: machines can start from it; maintained: %s", i.Name, age.Ago(record.LastMaintained()))
	}
	return all
}

func (d Doctor) checkLeftovers(ctx context.Context) []Finding {
	leftovers, err := d.Leftovers(ctx)
	if err != nil {
		return isWarning("", "%v", err)
	}
	if len(leftovers) == 0 {
		return isGood("none")
	}
	first := leftovers[0]
	more := ""
	if len(leftovers) > 1 {
		more = fmt.Sprintf(", and %d more", len(leftovers)-1)
	}
	collect := func(ctx context.Context) (failed error) {
		for _, l := range leftovers {
			if err := l.Remove(ctx); err != nil {
				failed = errors.Join(failed, fmt.Errorf("%s %s: %w", l.What, l.Path, err))
			}
		}
		return failed
	}
	return withFix(isWarning("'nspawn-runner gc' removes them, 'gc --dry-run' shows them", "%s %s: %s%s", first.What, first.Path, first.Why, more),
		collect, "remove what nobody owns (%d), as gc does", len(leftovers))
}

// checkJob runs a job: a script that says something, so that its output is seen
// to arrive.
func (d Doctor) checkJob(ctx context.Context, name string) []Finding {
	const greeting = "the doctor's job"
	var output bytes.Buffer
	err := d.Jobs.Try(ctx, name, machine.Script{
		Source: strings.NewReader(job.CommandScript([]string{"echo", greeting})), Label: "doctor",
		Stdout: &output, Stderr: &output,
	})
	switch {
	case err != nil:
		return isBad("nspawn-runner --debug try "+name+" -- true", "%v %s", err, output.String())
	case strings.TrimSpace(output.String()) != greeting:
		return isBad("nspawn-runner try "+name+" shows it", "a job of image %s printed %q", name, output.String())
	}
	return isGood("a job of image %s ran", name)
}
