package client

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/transcribe"
	"github.com/unmoor/unmoor/internal/wire"
	removal "github.com/unmoor/unmoor/varlink/removal"
)

// Load is service.Local's, on what this process can read: the daemon gets a descriptor. A stream is an *os.File.
// Of r.Copy, Report is not used, and a signature policy is an error, since the daemon has its own. Errors beside
// service.Local's: *LostError, after which what was not complete is not there.
func (c *Client) Load(ctx context.Context, r core.LoadRequest) ([]core.LoadedImage, error) {
	in := transcribe.FromLoad(r)
	in.FileDescriptor = new(int64)
	var images []core.LoadedImage
	err := copied(ctx, c, "Load", r.Source, r.Copy, in, func(reply transcribe.LoadOut, last bool) (*removal.CopyProgress, error) {
		if !last {
			return reply.Progress, nil
		}
		if reply.Images == nil {
			return nil, errors.New("the last reply has no images")
		}
		var err error
		images, err = transcribe.ToLoadedImages(*reply.Images)
		return nil, err
	})
	if incomplete, ok := errors.AsType[*transcribe.IncompleteError](err); ok {
		return incomplete.Images, err
	}
	return images, err
}

// Import is service.Local's, as Load is.
func (c *Client) Import(ctx context.Context, r core.ImportRequest) (core.LoadedImage, error) {
	in := transcribe.FromImport(r)
	in.FileDescriptor = new(int64)
	var image core.LoadedImage
	err := copied(ctx, c, "Import", r.Source, r.Copy, in, func(reply transcribe.ImportOut, last bool) (*removal.CopyProgress, error) {
		if !last {
			return reply.Progress, nil
		}
		if reply.Image == nil {
			return nil, errors.New("the last reply has no image")
		}
		var err error
		image, err = transcribe.ToLoadedImage(*reply.Image)
		return nil, err
	})
	return image, err
}

// copied makes a call that has something copied into the store.
func copied[Reply any](ctx context.Context, c *Client, method string, source core.ImageSource, o core.CopyOptions, in any,
	each func(reply Reply, last bool) (*removal.CopyProgress, error)) error {
	if o.SignaturePolicy != "" {
		return fmt.Errorf("the daemon at %s has a signature policy of its own: leave that out", c.address)
	}
	file, ok := source.Stream.(*os.File)
	if source.Path != "" {
		var err error
		if file, err = os.Open(source.Path); err != nil {
			return err
		}
		defer file.Close()
	} else if !ok {
		return fmt.Errorf("the daemon at %s takes a descriptor, and there is none of %s", c.address, source)
	}
	err := streamWith(ctx, c, method, in, []*os.File{file}, func(reply Reply, last bool) error {
		p, err := each(reply, last)
		if err != nil || p == nil {
			return err
		}
		progress, err := transcribe.ToCopyProgress(*p)
		if err == nil && o.Progress != nil {
			o.Progress(progress)
		}
		return err
	})
	if errors.Is(err, wire.ErrNoFiles) {
		return fmt.Errorf("the daemon at %s is on another host, and cannot be given %s: run this command there", c.address, source)
	}
	err = c.ended(method, "", err, &LostError{Address: c.address})
	if format, ok := errors.AsType[*core.FormatError](err); ok {
		format.Source = source.String()
	}
	return err
}
