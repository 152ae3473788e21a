package crio

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/unmoor/unmoor/core"
)

// Pins says which images CRI-O pins: those that have a name which fits its pinned_images, and its pause
// image. CRI-O itself removes a pinned image when it is told to (server/image_remove.go); the pin
// tells the kubelet to leave it alone, and so it does here.
//
// The error says that CRI-O could not be asked, or answered nonsense. It wraps core.ErrEngineAbsent
// where there is no socket.
func (p *Plugin) Pins(ctx context.Context, store core.StoreInfo, images []core.Image) ([]core.Pin, error) {
	pins := make([]core.Pin, len(images))
	for i := range images {
		pins[i] = core.Pin{Image: images[i].ID, Pinned: core.PinnedNo}
	}
	ctx, cancel := context.WithTimeout(ctx, p.options.Timeout)
	defer cancel()
	client, err := p.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer client.close()
	root, where, err := p.ask(ctx, client, store)
	switch {
	case err != nil:
		return nil, err
	case where == siteOther:
		return pins, nil
	case where != siteSame:
		for i := range pins {
			pins[i].Pinned = core.PinnedUnknown
			pins[i].Reason = fmt.Sprintf("CRI-O's store is %s, which cannot be compared with this one", clip(root))
		}
		return pins, nil
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(p.options.Parallel)
	for i := range images {
		if images[i].ManifestList {
			// CRI-O runs no list, and has no state of one: it takes the list for an image and looks in its
			// record for the manifest of an instance, which has a record of its own
			// (internal/storage/image.go, buildImageCacheItem).
			continue
		}
		g.Go(func() error { return client.pin(ctx, &pins[i]) })
	}
	return pins, g.Wait()
}

// ask asks who answers and where the store is, side by side: what CRI-O does not know is not pinned,
// so it has to be CRI-O.
func (p *Plugin) ask(ctx context.Context, c *client, store core.StoreInfo) (root string, where site, err error) {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		_, err := c.version(ctx)
		return err
	})
	g.Go(func() (err error) {
		root, where, err = p.locate(ctx, c, store)
		return err
	})
	err = g.Wait()
	return root, where, err
}

// pin asks about one image. CRI-O takes 64 hexadecimal digits for an ID and no other image's name
// (server/image_status.go, storageImageStatus; internal/storage/image.go,
// HeuristicallyTryResolvingStringAsIDPrefix), and pins an image where any of its names fits one of
// pinned_images, to which it adds the pause image (internal/storage/image.go, buildImageResult and
// GetImageService). Of an image that it does not know it says nothing, and no error; but it asks its
// artifact store then, which knows an artifact by its digest (server/image_status.go, ImageStatus). An
// error about one image, whose configuration it cannot read say, leaves the others as they are.
func (c *client) pin(ctx context.Context, pin *core.Pin) error {
	answer, err := c.images.ImageStatus(ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: string(pin.Image)}})
	switch status.Code(err) {
	case codes.OK:
	case codes.Unknown, codes.Internal, codes.NotFound:
		pin.Pinned, pin.Reason = core.PinnedUnknown, c.failed("image "+pin.Image.Short(), err).Error()
		pin.Advice = `see what CRI-O has against it (journalctl -u crio), or set [plugin.crio] when_unavailable = "ignore" in config.toml to go on without its pins`
		return nil
	default:
		return c.failed("image "+pin.Image.Short(), err)
	}
	image := answer.GetImage()
	switch {
	case image == nil:
	case image.GetId() != string(pin.Image):
		return c.nonsense(fmt.Errorf("asked about image %s, it told of %.80q", pin.Image.Short(), image.GetId()))
	case image.GetPinned():
		pin.Pinned, pin.Reason = core.PinnedYes, "pinned by CRI-O"
		pin.Advice = "take it out of pinned_images in CRI-O's configuration and have CRI-O reload that (systemctl reload crio); its pause_image is always pinned"
	}
	return nil
}
