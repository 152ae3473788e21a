package client

import (
	"context"
	"errors"

	"github.com/unmoor/unmoor/internal/service"
	"github.com/unmoor/unmoor/internal/transcribe"
	removal "github.com/unmoor/unmoor/varlink/removal"
)

// Containers is service.Local's.
func (c *Client) Containers(ctx context.Context, q service.ContainerQuery, each func(service.Container) error) error {
	var own error
	err := stream(ctx, c, "ListContainers", transcribe.FromQuery(q), func(reply transcribe.ListContainersOut, last bool) error {
		return one(reply.Container, last, transcribe.ToContainer, each, &own)
	})
	if own != nil {
		return own
	}
	return c.failed("ListContainers", "", err)
}

// ContainerNames lists what the store calls its containers, for completion; an ID, cut, stands for one
// without a name.
func (c *Client) ContainerNames(ctx context.Context) ([]string, error) {
	var names []string
	err := c.Containers(ctx, service.ContainerQuery{}, func(v service.Container) error {
		if names = append(names, v.Names...); len(v.Names) == 0 {
			names = append(names, v.ID.Short())
		}
		return nil
	})
	return names, err
}

// Images is service.Local's.
func (c *Client) Images(ctx context.Context, reference string, each func(service.Image) error) error {
	var in transcribe.ListImagesIn
	if reference != "" {
		in.Image = &reference
	}
	var own error
	err := stream(ctx, c, "ListImages", in, func(reply transcribe.ListImagesOut, last bool) error {
		return one(reply.Image, last, transcribe.ToImage, each, &own)
	})
	if own != nil {
		return own
	}
	return c.failed("ListImages", "", err)
}

// one hands on a reply of a list. own is where the error of each goes, which ends the stream.
func one[W, M any](reply *W, last bool, read func(W) (M, error), each func(M) error, own *error) error {
	if reply == nil {
		if !last {
			return errors.New("a reply in the middle of a list is empty")
		}
		return nil // an empty list
	}
	m, err := read(*reply)
	if err != nil {
		return err
	}
	*own = each(m)
	return *own
}

// Explain is service.Local's.
func (c *Client) Explain(ctx context.Context, reference string) (*service.Explanation, error) {
	var out transcribe.ExplainOut
	if err := c.call(ctx, "Explain", transcribe.ExplainIn{Reference: reference}, &out); err != nil {
		return nil, err
	}
	e, err := transcribe.ToExplanation(out)
	return e, c.senseless(err)
}

// Plugins lists the daemon's plugins.
func (c *Client) Plugins(ctx context.Context) ([]service.Plugin, error) {
	var out transcribe.ListPluginsOut
	if err := c.call(ctx, "ListPlugins", nil, &out); err != nil {
		return nil, err
	}
	plugins := []service.Plugin{}
	for _, p := range out.Plugins {
		plugin, err := transcribe.ToPlugin(p)
		if err != nil {
			return nil, c.senseless(err)
		}
		plugins = append(plugins, plugin)
	}
	return plugins, nil
}

// RegisterPlugin has the daemon ask the plugin at an address, too.
func (c *Client) RegisterPlugin(ctx context.Context, address string) (service.Plugin, error) {
	var out struct {
		Plugin removal.Plugin `json:"plugin"`
	}
	if err := c.call(ctx, "RegisterPlugin", transcribe.RegisterPluginIn{Address: address}, &out); err != nil {
		return service.Plugin{}, err
	}
	p, err := transcribe.ToPlugin(out.Plugin)
	return p, c.senseless(err)
}

// UnregisterPlugin ends what RegisterPlugin began.
func (c *Client) UnregisterPlugin(ctx context.Context, plugin string) error {
	return c.call(ctx, "UnregisterPlugin", transcribe.UnregisterPluginIn{Name: plugin}, nil)
}
