package integration

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
	"unsafe"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sys/unix"
)

// serves starts a registry, and allows jobs all of its images; more are further lines of the
// configuration.
func (h *host) serves(t *testing.T, more string) *registry {
	t.Helper()
	needLab(t)
	r := startRegistry(t, false)
	h.forgets(t)
	h.configure(t, r.allow()+more)
	return r
}

// pushLayers puts an image of layers into the registry, and returns what a job calls it.
func (r *registry) pushLayers(t *testing.T, to string, config v1.Config, layers ...v1.Layer) string {
	t.Helper()
	image, err := mutate.AppendLayers(imageWith(t, config), layers...)
	must(t, err)
	return r.push(t, to, image)
}

// file is one of an image; with link it is one to that.
type file struct {
	text, link string
	mode       int64
	uid, gid   int
	isDir      bool
}

// layerOf is a layer of files by their paths.
func layerOf(t *testing.T, files map[string]file) v1.Layer {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for path, f := range files {
		header := tar.Header{Name: path, Typeflag: tar.TypeReg, Size: int64(len(f.text)), Mode: f.mode, Uid: f.uid, Gid: f.gid}
		if f.mode == 0 {
			header.Mode = 0o755
		}
		switch {
		case f.link != "":
			header.Typeflag, header.Linkname = tar.TypeSymlink, f.link
		case f.isDir:
			header.Typeflag = tar.TypeDir
		}
		must(t, w.WriteHeader(&header))
		_, err := io.WriteString(w, f.text)
		must(t, err)
	}
	must(t, w.Close())
	return layerOfTar(t, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(out.Bytes())), nil })
}

func layerOfTar(t *testing.T, open tarball.Opener) v1.Layer {
	t.Helper()
	layer, err := tarball.LayerFromOpener(open, tarball.WithCompressionLevel(gzip.BestSpeed))
	must(t, err)
	return layer
}

// programPath is where images have the program of [actAsService].
const programPath = "/service"

// programLayer is a layer with nothing but a static program: this one.
func programLayer(t *testing.T) v1.Layer {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	text, err := os.ReadFile(self)
	must(t, err)
	return layerOf(t, map[string]file{"service": {text: string(text)}})
}

// The binary of these tests is also the program of images. It links to nothing.
func init() {
	if os.Args[0] == programPath {
		actAsService(os.Args[1:])
	}
}

// actAsService does what the arguments of a service say, and ends the process.
func actAsService(args []string) {
	word := func(i int) string {
		if i < len(args) {
			return args[i]
		}
		return ""
	}
	switch word(0) {
	case "exit":
		fmt.Println("the program ends with", word(1))
		code, _ := strconv.Atoi(word(1))
		os.Exit(code)
	case "kill":
		fmt.Println("the program kills itself")
		die()
	case "quiet":
		time.Sleep(time.Hour)
	case "goodbye":
		asked := make(chan os.Signal, 1)
		signal.Notify(asked, syscall.SIGINT)
		go func() {
			fmt.Println("asked to end by", <-asked)
			if word(2) != "never" {
				os.Exit(0)
			}
		}()
	}
	fmt.Fprintln(os.Stderr, "listening at", word(1))
	fmt.Println(http.ListenAndServe(net.JoinHostPort("", word(1)), http.HandlerFunc(serveRequest)))
	os.Exit(1)
}

// die has the kernel kill this process. The first process of a machine gets no signal that it
// sends to itself.
func die() {
	kill := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0x80000000} // SECCOMP_RET_KILL_PROCESS
	filter := unix.SockFprog{Len: 1, Filter: &kill}
	_ = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	_, _, err := unix.Syscall(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&filter)))
	fmt.Println("still alive:", err)
}

func serveRequest(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/exit":
		code, _ := strconv.Atoi(r.FormValue("code"))
		fmt.Println("told to end with", code)
		os.Exit(code)
	case "/fetch":
		answer, err := http.Get(r.FormValue("url"))
		if err != nil {
			fmt.Fprintln(w, err)
			return
		}
		defer answer.Body.Close()
		_, _ = io.Copy(w, answer.Body)
	case "/file":
		text, err := os.ReadFile(r.FormValue("path"))
		if err != nil {
			fmt.Fprintln(w, err)
		}
		_, _ = w.Write(text)
	case "/sh":
		ctx, cancel := context.WithTimeout(r.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, "/bin/bash", "-s")
		cmd.Stdin = r.Body
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := cmd.Run()
		if cmd.ProcessState == nil {
			http.Error(w, fmt.Sprint(err), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Exit-Code", strconv.Itoa(cmd.ProcessState.ExitCode()))
		_, _ = w.Write(append(append(stdout.Bytes(), 0), stderr.Bytes()...))
	default:
		showService(w)
	}
}

// showService shows what a program sees of itself.
func showService(w io.Writer) {
	groups, _ := os.Getgroups()
	dir, _ := os.Getwd()
	host, _ := os.Hostname()
	fmt.Fprintln(w, "user", os.Getuid(), os.Getgid(), groups)
	fmt.Fprintln(w, "process", os.Getpid(), "in", dir, "on", host, "with", os.Args[1:])
	for _, pair := range os.Environ() {
		fmt.Fprintln(w, "env", pair)
	}
	for _, dir := range []string{"/run", "/tmp", "/usr"} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			fmt.Fprintln(w, "has", filepath.Join(dir, e.Name()))
		}
	}
	output, err := os.OpenFile("/dev/stdout", os.O_WRONLY, 0)
	if err == nil {
		fmt.Fprintln(output, "written to /dev/stdout")
		output.Close()
	}
	fmt.Fprintln(w, "stdout", err)
	var shared syscall.Statfs_t
	_ = syscall.Statfs("/dev/shm", &shared)
	fmt.Fprintln(w, "shared memory", shared.Blocks*uint64(shared.Bsize)>>20)
	_, err = os.StartProcess(programPath, []string{programPath, "exit", "0"}, &os.ProcAttr{Sys: &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}})
	fmt.Fprintln(w, "user namespace", err)
}
