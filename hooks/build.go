package hooks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/protocol"
)

// Builder is a Plugin whose engine builds images.
type Builder interface {
	// Build builds an image in the store, names it and returns its ID. output is told of each line that the
	// engine writes, one after the other; it may take its time. ctx ends the build. An error says why there
	// is no image; one that wraps core.ErrEngineAbsent that the engine is not on this machine, and one with a
	// method Advice() string what an operator can do.
	Build(ctx context.Context, store core.StoreInfo, r core.BuildRequest, output func(line string)) (core.ImageID, error)
}

// endOfBuild is how long a plugin has to end a build that its caller gave up.
var endOfBuild = 30 * time.Second

// Build has an engine build an image: that of the plugin that the request names, or of the only one that
// can. A build may take as long as it likes; a plugin on a socket gives signs of life. output is told of
// each line, and never after Build has returned. ctx ends the build. Whether the image is there is the
// store's to say.
func (r *Registry) Build(ctx context.Context, store core.StoreInfo, request core.BuildRequest, output func(line string)) (core.ImageID, error) {
	m, b, err := r.builder(ctx, request.Engine)
	if err != nil {
		return "", err
	}
	f := m.shut()
	var id core.ImageID
	if f == nil {
		id, f = build(ctx, b, store, request, output)
	}
	if f == nil {
		if err := protocol.CheckBuilt(id); err != nil {
			f = &fault{faultGarbage, err}
		}
	}
	var own adviser
	switch {
	case f == nil:
		m.note(nil)
		return id, nil
	case ctx.Err() != nil:
		return "", fmt.Errorf("build with %s: %w", m.name, ctx.Err())
	case errors.Is(f.err, errNotOffered):
		return "", fmt.Errorf("plugin %s builds no images", m.name)
	case f.kind == faultError && !errors.As(f.err, &own) && !errors.Is(f.err, core.ErrEngineAbsent): // of a build, and none of the engine's
		return "", fmt.Errorf("build with %s: %w", m.name, f.err)
	case f.kind != faultError:
		m.note(f)
	}
	return "", fmt.Errorf("build with %s: %w; %s", m.name, f, remedy(m.settings(), f))
}

// builder is the plugin that builds. One of which nothing is known is asked first.
func (r *Registry) builder(ctx context.Context, name string) (*member, Builder, error) {
	var all []*member
	var wg sync.WaitGroup
	for _, m := range r.asked() {
		if _, ok := m.plugin.(Builder); !ok || name != "" && m.name != name {
			continue
		}
		all = append(all, m)
		if m.unknown() {
			wg.Go(func() { m.describe(ctx) })
		}
	}
	wg.Wait()
	var able []*member
	var doubts []string
	for _, m := range all {
		switch {
		case !m.offers("build"):
		case name == "" && (m.settings().kept || m.unknown()):
			doubts = append(doubts, fmt.Sprintf("%s may, and %s", m.name, strings.TrimPrefix(m.status().LastError, "it ")))
		default:
			able = append(able, m)
		}
	}
	switch {
	case len(able) == 1:
		return able[0], able[0].plugin.(Builder), nil
	case len(able) > 1:
		var names []string
		for _, m := range able {
			names = append(names, m.name)
		}
		return nil, nil, fmt.Errorf("%s build images: say which of them by --engine", list(names))
	case name != "" && len(all) > 0:
		return nil, nil, fmt.Errorf("plugin %s builds no images", name)
	case name != "":
		if _, there := r.member(name); there {
			return nil, nil, fmt.Errorf("plugin %s builds no images", name)
		}
		return nil, nil, fmt.Errorf("there is no plugin %q", name)
	}
	why := strings.Join(append([]string{"no engine builds images here"}, doubts...), "; ")
	return nil, nil, errors.New(why + ": enable or install a plugin with the capability build; unmoor plugins shows those that there are")
}

// unknown is whether it is a plugin on a socket that has never described itself.
func (m *member) unknown() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.remote != nil && m.record == nil
}

// build waits for the plugin until it is done. Once ctx has ended it has so long to end, too, since what it
// began should not be left running.
func build(ctx context.Context, b Builder, store core.StoreInfo, r core.BuildRequest, output func(line string)) (core.ImageID, *fault) {
	most := endOfBuild
	patient, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	defer context.AfterFunc(ctx, func() {
		_ = pause(patient, most) // whichever comes first
		giveUp()
	})()
	var mu sync.Mutex
	over := false
	defer func() {
		mu.Lock()
		defer mu.Unlock()
		over = true
	}()
	store.GraphOptions = slices.Clone(store.GraphOptions)
	r.Containerfiles, r.Names = slices.Clone(r.Containerfiles), slices.Clone(r.Names)
	r.Args, r.Labels = slices.Clone(r.Args), slices.Clone(r.Labels)
	return call(patient, forEver, func(context.Context) (core.ImageID, error) {
		return b.Build(ctx, store, r, func(line string) {
			mu.Lock()
			defer mu.Unlock()
			if !over {
				output(line)
			}
		})
	})
}
