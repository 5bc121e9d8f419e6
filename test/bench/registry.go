package main

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// served are images in a registry on the loopback.
type served struct {
	server *httptest.Server
	// config is a configuration of the driver that allows them.
	config string
}

// serveImages serves images of the trees of PostgreSQL and Redis.
func (b *bench) serveImages() (*served, error) {
	s := &served{server: httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0)))), config: b.config + ".registry"}
	settings, err := os.ReadFile(b.config)
	if err == nil {
		settings = fmt.Appendf(settings, "oci_images: ['%[1]s/*']\noci_insecure: ['%[1]s']\n", s.host())
		err = os.WriteFile(s.config, settings, 0o600)
	}
	err = errors.Join(err, b.push(s.host(), "postgres", startPostgres, "5432/tcp"), b.push(s.host(), "redis", startRedis, "6379/tcp"))
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *served) host() string { return strings.TrimPrefix(s.server.URL, "http://") }

func (s *served) close() { s.server.Close() }

// both are the services of the measured jobs.
func (s *served) both() string {
	return fmt.Sprintf(`CUSTOM_ENV_CI_JOB_SERVICES=[{"name":"%[1]s/postgres"},{"name":"%[1]s/redis"}]`, s.host())
}

// push makes an image of the tree of one of ours, and pushes it.
func (b *bench) push(host, image string, start []string, port string) error {
	tree, err := filepath.EvalSymlinks(filepath.Join(b.state, image))
	if err != nil {
		return err
	}
	layer := filepath.Join(b.state, "."+image+".tar")
	defer os.Remove(layer)
	if err := command("tar", "--directory", tree, "--create", "--file", layer, "."); err != nil {
		return err
	}
	base, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		OS: "linux", Architecture: runtime.GOARCH, RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{Cmd: start, ExposedPorts: map[string]struct{}{port: {}}},
	})
	if err != nil {
		return err
	}
	unpacked, err := tarball.LayerFromFile(layer, tarball.WithCompressionLevel(gzip.BestSpeed))
	if err != nil {
		return err
	}
	whole, err := mutate.AppendLayers(base, unpacked)
	if err != nil {
		return err
	}
	ref, err := name.ParseReference(host+"/"+image, name.Insecure)
	if err != nil {
		return err
	}
	return remote.Write(ref, whole)
}
