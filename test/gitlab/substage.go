package gitlab

import (
	"cmp"
	"fmt"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// The sub-stages of run that this package writes scripts for. A driver must
// treat the name as a label: others exist, as [Job.Steps] shows.
const (
	PrepareScript      = "prepare_script"
	GetSources         = "get_sources"
	ClearWorktree      = "clear_worktree"
	RestoreCache       = "restore_cache"
	DownloadArtifacts  = "download_artifacts"
	BuildScript        = "build_script"
	AfterScript        = "after_script"
	ArchiveCache       = "archive_cache"
	ArchiveCacheFailed = "archive_cache_on_failure"
	UploadArtifacts    = "upload_artifacts_on_success"
	UploadFailed       = "upload_artifacts_on_failure"
	CleanupVariables   = "cleanup_file_variables"
)

// headers are what the job's log says when a sub-stage begins.
var headers = map[string]string{
	PrepareScript:      "Preparing environment",
	GetSources:         "Getting source from Git repository",
	ClearWorktree:      "Deleting all tracked and untracked files due to source fetch failure",
	RestoreCache:       "Restoring cache",
	DownloadArtifacts:  "Downloading artifacts",
	BuildScript:        `Executing "step_script" stage of the job script`,
	AfterScript:        "Running after_script",
	ArchiveCache:       "Saving cache for successful job",
	ArchiveCacheFailed: "Saving cache for failed job",
	UploadArtifacts:    "Uploading artifacts for successful job",
	UploadFailed:       "Uploading artifacts for failed job",
	CleanupVariables:   "Cleaning up project directory and file based variables",
}

// script is the job's own, as GitLab sends it: one step of both lists.
func (j Job) script() []string {
	return append(append([]string{}, j.BeforeScript...), j.Script...)
}

// refspec names the commit for git fetch.
func (j Job) refspec() string {
	if j.Git.RefType == "tag" {
		return "+refs/tags/" + j.Git.Ref + ":refs/tags/" + j.Git.Ref
	}
	return "+refs/heads/" + j.Git.Ref + ":refs/remotes/origin/" + j.Git.Ref
}

// A writer of scripts knows the job, the try and the variables of the moment.
type writer struct {
	job Job
	try *try
	vs  variables
	script
}

// prepareScript tells where the job runs.
func (w *writer) prepareScript() {
	via := ""
	if w.try.hostname != "" {
		via = " via " + w.try.hostname
	}
	w.line(`echo "Running on $(hostname)%s..."`, via)
}

// getSources makes the project's directory, and fetches the commit into it.
func (w *writer) getSources() error {
	w.exports(w.try, w.vs)
	dir, git := w.try.projectDir, w.job.Git
	strategy := w.vs.value("GIT_STRATEGY")
	if git.URL == "" {
		strategy = cmp.Or(strategy, "none")
	}
	switch cmp.Or(strategy, "fetch") {
	case "none":
		w.notice("Skipping Git repository setup")
		w.command("mkdir", "-p", dir)
		w.notice("Skipping Git checkout")
		w.notice("Skipping Git submodules setup")
		return nil
	case "empty":
		w.notice("Skipping Git repository setup and creating an empty build directory")
		w.command("rm", "-r", "-f", dir)
		w.command("mkdir", "-p", dir)
		w.notice("Skipping Git checkout")
		w.notice("Skipping Git submodules setup")
		return nil
	case "clone":
		w.command("rm", "-r", "-f", dir)
	case "fetch":
	default:
		return fmt.Errorf("unknown GIT_STRATEGY %q", strategy)
	}

	fetch := []string{"git", "fetch", "origin", "--no-recurse-submodules", w.job.refspec(), "--prune", "--quiet"}
	if git.Depth > 0 {
		w.notice("Fetching changes with git depth set to %d...", git.Depth)
		fetch = append(fetch, "--depth", strconv.Itoa(git.Depth))
	} else {
		w.notice("Fetching changes...")
	}
	w.line("export GIT_TERMINAL_PROMPT=0")
	w.command("git", "-c", "init.defaultBranch=none", "init", dir)
	w.command("cd", dir)
	w.line("if git remote add origin %s >/dev/null 2>&1; then", quote(w.job.repositoryURL()))
	w.notice("Created fresh repository.")
	w.line("else")
	w.command("git", "remote", "set-url", "origin", w.job.repositoryURL())
	w.line("fi")
	w.command(fetch...)
	commit := cmp.Or(git.SHA, "FETCH_HEAD")
	w.notice("Checking out %.8s as detached HEAD (ref is %s)...", cmp.Or(git.SHA, git.Ref), git.Ref)
	w.command("git", "checkout", "-f", "-q", commit)
	w.command("git", "clean", "-ffdx")
	w.notice("Skipping Git submodules setup")
	return nil
}

// clearWorktree removes what an interrupted fetch may have left.
func (w *writer) clearWorktree() {
	w.notice("Deleting tracked and untracked files...")
	w.line("if [ -d %s ]; then", quote(w.try.projectDir))
	w.command("cd", w.try.projectDir)
	w.command("git", "rm", "-rf", "--ignore-unmatch", ".")
	w.command("git", "clean", "-ffdx")
	w.line("fi")
}

// inProject begins every script that works on the job's files.
func (w *writer) inProject() {
	w.exports(w.try, w.vs)
	w.command("cd", w.try.projectDir)
}

// userScript runs lines that a person wrote.
func (w *writer) userScript(lines []string) {
	w.inProject()
	w.user(lines)
}

// afterScript runs those lines that follow, whatever became of the others.
func (w *writer) afterScript() {
	w.inProject()
	w.notice("Running after script...")
	w.user(w.job.AfterScript)
}

// cacheFile is the archive's path as the script reaches it: relative to the
// project, computed from the names of both directories alone. A symlink on the
// way in the machine leads it astray.
func (w *writer) cacheFile(c Cache) (key, file string, err error) {
	key = cmp.Or(w.vs.expand(c.Key), path.Join(w.job.Name, w.job.Git.Ref))
	file = path.Join(w.try.cacheDir, w.job.Project.Path, key, "cache.zip")
	file, err = filepath.Rel(w.try.projectDir, file)
	return key, file, err
}

// restoreCache unpacks the caches of earlier jobs.
func (w *writer) restoreCache() error {
	w.inProject()
	for _, c := range w.job.Cache {
		key, file, err := w.cacheFile(c)
		if err != nil {
			return fmt.Errorf("cache: %w", err)
		}
		if c.Policy == "push" {
			w.notice("Not downloading cache %s due to policy", key)
			continue
		}
		w.withRunner("Extracting cache", func() {
			w.notice("Checking cache for %s...", key)
			w.attempt([]string{"gitlab-runner", "cache-extractor", "--file", file, "--timeout", "10"},
				"Successfully extracted cache", "Failed to extract cache")
		})
	}
	return nil
}

// downloadArtifacts fetches what earlier jobs of the pipeline left.
func (w *writer) downloadArtifacts() {
	w.inProject()
	w.withRunner("Artifacts downloading", func() {
		for _, d := range w.job.artifactsToDownload() {
			w.notice("Downloading artifacts for %s (%d)...", d.Name, d.ID)
			w.command("gitlab-runner", "artifacts-downloader", "--url", w.job.ServerURL, "--token", d.Token, "--id", strconv.FormatInt(d.ID, 10))
		}
	})
}

// archiveCache packs the caches for later jobs.
func (w *writer) archiveCache(caches []Cache) error {
	w.inProject()
	for _, c := range caches {
		key, file, err := w.cacheFile(c)
		if err != nil {
			return fmt.Errorf("cache: %w", err)
		}
		if c.Policy == "pull" {
			w.notice("Not uploading cache %s due to policy", key)
			continue
		}
		w.withRunner("Creating cache", func() {
			w.notice("Creating cache %s...", key)
			words := []string{"gitlab-runner", "cache-archiver", "--file", file, "--timeout", "10"}
			w.attempt(append(words, pathArgs(c.Paths, nil, c.Untracked)...), "Created cache", "Failed to create cache")
		})
	}
	return nil
}

// uploadArtifacts sends files to GitLab. Unlike with caches, failing at it
// fails the job.
func (w *writer) uploadArtifacts(artifacts []Artifact) {
	w.inProject()
	for _, a := range artifacts {
		words := []string{"gitlab-runner", "artifacts-uploader", "--url", w.job.ServerURL, "--token", w.job.Token, "--id", strconv.FormatInt(w.job.ID, 10)}
		words = append(words, pathArgs(a.Paths, a.Exclude, a.Untracked)...)
		for _, option := range [][2]string{{"--name", a.Name}, {"--expire-in", a.ExpireIn}, {"--artifact-format", a.Format}, {"--artifact-type", a.Type}} {
			if option[1] != "" {
				words = append(words, option[0], option[1])
			}
		}
		w.withRunner("Uploading artifacts", func() {
			w.notice("Uploading artifacts...")
			w.command(words...)
		})
	}
}

// cleanupVariables removes the files of File variables.
func (w *writer) cleanupVariables() {
	w.command("rm", "-r", "-f", w.try.tempDir())
}

// pathArgs name the files of an archive.
func pathArgs(paths, exclude []string, untracked bool) []string {
	var args []string
	for _, p := range paths {
		args = append(args, "--path", p)
	}
	for _, p := range exclude {
		args = append(args, "--exclude", p)
	}
	if untracked {
		args = append(args, "--untracked")
	}
	return args
}

// artifactsToDownload are the dependencies that left any.
func (j Job) artifactsToDownload() []Dependency {
	var found []Dependency
	for _, d := range j.Dependencies {
		if d.File != "" {
			found = append(found, d)
		}
	}
	return found
}

// artifactsFor are those that a job with this outcome leaves.
func (j Job) artifactsFor(outcome Status) []Artifact {
	var found []Artifact
	for _, a := range j.Artifacts {
		if a.When.applies(outcome) && (len(a.Paths) > 0 || a.Untracked) {
			found = append(found, a)
		}
	}
	return found
}

// cachesFor are those that a job with this outcome leaves.
func (j Job) cachesFor(outcome Status) []Cache {
	var found []Cache
	for _, c := range j.Cache {
		if c.When.applies(outcome) && (len(c.Paths) > 0 || c.Untracked) {
			found = append(found, c)
		}
	}
	return found
}

// header announces a sub-stage.
func header(subStage string) string {
	if text, ok := headers[subStage]; ok {
		return text
	}
	return fmt.Sprintf("Executing %q stage of the job script", strings.ToLower(subStage))
}
