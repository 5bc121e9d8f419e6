package oci

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"nspawn-runner/runner/printable"
)

// registry is a registry that is asked for one image, with the credentials of a job.
type registry struct {
	ref    name.Reference // the reference in the request, maybe of the mirror
	puller *remote.Puller
	door   *door
	secret []string // texts that must not be in messages
	// anonymous says that it is asked without credentials.
	anonymous bool
}

// platform is that of this host.
var platform = v1.Platform{OS: "linux", Architecture: runtime.GOARCH}

// ask prepares the requests for an image.
func ask(rules Rules, ref name.Reference, keys Keychain, environment func(string) string) (*registry, error) {
	ref = rules.mirrored(ref)
	credential, found := keys.find(ref.Context().String())
	door := newDoor(rules, ref.Context().RegistryStr(), environment)
	puller, err := remote.NewPuller(
		remote.WithTransport(door),
		remote.WithAuthFromKeychain(keys),
		remote.WithPlatform(platform),
		remote.WithUserAgent("nspawn-runner"),
		// Short, so that a job that is cancelled meanwhile ends soon.
		remote.WithRetryBackoff(remote.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Steps: 3}),
	)
	return &registry{ref: ref, puller: puller, door: door, secret: credential.secrets(), anonymous: !found}, err
}

// close closes its connections.
func (r *registry) close() { r.door.CloseIdleConnections() }

// secrets returns the secret parts of a credential, in all forms in which they are sent.
func (c Credential) secrets() (all []string) {
	for _, secret := range []string{c.Password, c.IdentityToken, c.RegistryToken} {
		if secret != "" {
			all = append(all, secret, url.QueryEscape(secret))
		}
	}
	if c.Password != "" {
		all = append(all, base64.StdEncoding.EncodeToString([]byte(c.Username+":"+c.Password)))
	}
	return all
}

// refusal is the error if a registry does not give an image to these credentials, or does not have it.
type refusal struct{ error }

// silence is the error if a registry cannot be reached, or fails itself.
type silence struct{ error }

// failure rewrites an error of the library. It leaves out the text of the registry's answer, which may repeat a
// secret that was sent.
func (r *registry) failure(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	host := r.ref.Context().RegistryStr()
	var closed closedError
	var answer *transport.Error
	var inURL *url.Error
	switch {
	case errors.As(err, &closed):
		return refusal{closed}
	case errors.As(err, &answer):
		said := fmt.Errorf("the registry %s answers %d %s", host, answer.StatusCode, http.StatusText(answer.StatusCode))
		switch code := answer.StatusCode; {
		case code == http.StatusUnauthorized || code == http.StatusForbidden || code == http.StatusNotFound:
			who := "without credentials"
			if !r.anonymous {
				who = "with these credentials"
			}
			return refusal{fmt.Errorf("%w: there is no such image, or it is not given out %s", said, who)}
		case code >= 500 || code == http.StatusTooManyRequests || code == http.StatusRequestTimeout:
			return silence{said}
		}
		return said
	case errors.As(err, &inURL):
		err = inURL.Err // an address may have a secret in it
	}
	text := err.Error()
	for _, secret := range r.secret {
		text = strings.ReplaceAll(text, secret, "[hidden]")
	}
	worded := fmt.Errorf("the registry %s: %s", host, printable.Line(text))
	var network net.Error
	if errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errStalled) {
		return silence{worded}
	}
	return worded
}

// head returns the digest that an image has in the registry now: that of a list of images for several
// platforms, or of the image.
func (r *registry) head(ctx context.Context, ref name.Reference) (digest string, err error) {
	described, err := r.puller.Head(ctx, ref)
	if err == nil {
		return described.Digest.String(), nil
	}
	err = r.failure(ctx, err)
	if errors.As(err, &refusal{}) || errors.As(err, &silence{}) || ctx.Err() != nil {
		return "", err
	}
	// Some registries cannot answer this question.
	whole, err := r.puller.Get(ctx, ref)
	if err != nil {
		return "", r.failure(ctx, err)
	}
	return whole.Digest.String(), nil
}

// offer is an image of a registry, before its layers are fetched.
type offer struct {
	top    string // the digest of what the name means, maybe of a list of images
	digest v1.Hash
	config Config
	layers []v1.Descriptor
	sums   []v1.Hash // the digests of the decompressed layers
	size   int64     // of all compressed layers, in bytes
}

// maxLayers bounds the layers of an image. docker makes at most 127.
const maxLayers = 512

// dockerZStd is podman's type for a zstd layer in a docker manifest.
const dockerZStd = types.MediaType("application/vnd.docker.image.rootfs.diff.tar.zstd")

// maxConfig bounds the configuration of an image, in bytes.
const maxConfig = 4 << 20

// offer asks for the image for this host's platform. most bounds its compressed layers, in bytes.
func (r *registry) offer(ctx context.Context, most uint64) (offer, error) {
	whole, err := r.puller.Get(ctx, r.ref)
	if err != nil {
		return offer{}, r.failure(ctx, err)
	}
	image, err := whole.Image()
	if err != nil {
		return offer{}, r.failure(ctx, fmt.Errorf("no image for %s: %w", platform, err))
	}
	o := offer{top: whole.Digest.String()}
	if o.digest, err = image.Digest(); err != nil {
		return offer{}, r.failure(ctx, err)
	}
	manifest, err := image.Manifest()
	if err != nil {
		return offer{}, r.failure(ctx, fmt.Errorf("the manifest cannot be read: %w", err))
	}
	if err := o.accept(manifest, most); err != nil {
		return offer{}, err
	}
	return o, r.readConfig(ctx, &o, manifest.Config)
}

// accept takes the layers of a manifest, or returns an error if they cannot be unpacked.
func (o *offer) accept(manifest *v1.Manifest, most uint64) error {
	if o.digest.Algorithm != "sha256" {
		return fmt.Errorf("the image has a digest of the kind %s; sha256 is known", printable.Line(o.digest.Algorithm))
	}
	if kind := manifest.Config.MediaType; kind != types.DockerConfigJSON && kind != types.OCIConfigJSON {
		return fmt.Errorf("it is not an image that can be started, but %s", printable.Line(string(kind)))
	}
	if len(manifest.Layers) > maxLayers {
		return fmt.Errorf("the image has %d layers, and may have %d", len(manifest.Layers), maxLayers)
	}
	for _, layer := range manifest.Layers {
		switch layer.MediaType {
		case types.DockerLayer, types.DockerUncompressedLayer, types.OCILayer, types.OCILayerZStd, types.OCIUncompressedLayer, dockerZStd:
		default:
			return fmt.Errorf("a layer is of the kind %s, which is not known", printable.Line(string(layer.MediaType)))
		}
		if layer.Digest.Algorithm != "sha256" || layer.Size < 0 {
			return errors.New("a layer has no proper digest and size")
		}
		if uint64(layer.Size) > most || uint64(o.size+layer.Size) > most {
			return errors.New("the image is larger than this host allows (oci_image_max)")
		}
		o.size += layer.Size
	}
	o.layers = manifest.Layers
	return nil
}

// readConfig fetches the configuration of the image.
func (r *registry) readConfig(ctx context.Context, o *offer, described v1.Descriptor) error {
	text, err := r.blob(ctx, described, maxConfig)
	if err != nil {
		return fmt.Errorf("the configuration of the image: %w", err)
	}
	file, err := v1.ParseConfigFile(strings.NewReader(string(text)))
	if err != nil {
		return errors.New("the configuration of the image cannot be read")
	}
	if a := file.Architecture; a != "" && a != platform.Architecture || file.OS != "" && file.OS != platform.OS {
		return fmt.Errorf("the image is for %s, and this host is %s", printable.Line(file.OS+"/"+a), platform)
	}
	if len(file.RootFS.DiffIDs) != len(o.layers) {
		return fmt.Errorf("the image has %d layers, and its configuration names %d", len(o.layers), len(file.RootFS.DiffIDs))
	}
	for _, sum := range file.RootFS.DiffIDs {
		if sum.Algorithm != "sha256" {
			return errors.New("the configuration of the image names a layer without a proper digest")
		}
	}
	o.sums = file.RootFS.DiffIDs
	o.config = configOf(file.Config)
	return nil
}

// maxPorts is how many exposed ports of an image are kept, as in gitlab-runner.
const maxPorts = 20

// configOf returns the parts of an image's configuration that this program uses.
func configOf(c v1.Config) Config {
	config := Config{
		Entrypoint: c.Entrypoint, Command: c.Cmd, Environment: c.Env,
		User: c.User, WorkingDir: c.WorkingDir, StopSignal: c.StopSignal,
	}
	for port := range c.ExposedPorts {
		number, protocol, _ := strings.Cut(port, "/")
		if n, err := strconv.ParseUint(number, 10, 16); err == nil && n > 0 && (protocol == "" || strings.EqualFold(protocol, "tcp")) {
			config.Ports = append(config.Ports, uint16(n))
		}
	}
	slices.Sort(config.Ports)
	config.Ports = slices.Compact(config.Ports)
	config.Ports = config.Ports[:min(len(config.Ports), maxPorts)]
	return config
}

// blob fetches a blob of at most so many bytes into memory.
func (r *registry) blob(ctx context.Context, described v1.Descriptor, most int64) ([]byte, error) {
	if described.Size < 0 || described.Size > most {
		return nil, fmt.Errorf("it has %d bytes, and may have %d", described.Size, most)
	}
	var text strings.Builder
	if err := r.fetch(ctx, described, &text); err != nil {
		return nil, err
	}
	return []byte(text.String()), nil
}

// sink notes why a write failed. That is a failure of this host, and not of the registry.
type sink struct {
	io.Writer
	failed error
}

func (s *sink) Write(p []byte) (n int, err error) {
	n, err = s.Writer.Write(p)
	s.failed = err
	return n, err
}

// fetch writes a blob, and checks its size and its digest. After an error, part of it may have been written.
func (r *registry) fetch(ctx context.Context, described v1.Descriptor, to io.Writer) error {
	layer, err := r.puller.Layer(ctx, r.ref.Context().Digest(described.Digest.String()))
	if err != nil {
		return r.failure(ctx, err)
	}
	blob, err := layer.Compressed() // checks the digest
	if err != nil {
		return r.failure(ctx, err)
	}
	defer blob.Close()
	out := &sink{Writer: to}
	n, err := io.Copy(out, io.LimitReader(blob, described.Size+1))
	if out.failed != nil {
		return fmt.Errorf("keep a layer: %w", out.failed)
	}
	if err != nil {
		return r.failure(ctx, err)
	}
	if n != described.Size {
		return fmt.Errorf("the registry %s sends a layer of another size than it says", r.ref.Context().RegistryStr())
	}
	return nil
}
