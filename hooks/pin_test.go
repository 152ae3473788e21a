package hooks_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/hooks"
)

// pinner is a fake whose engine can pin.
type pinner struct {
	fake
	pins func(context.Context, []core.Image) ([]core.Pin, error)
}

func (p pinner) Pins(ctx context.Context, _ core.StoreInfo, images []core.Image) ([]core.Pin, error) {
	return p.pins(ctx, images)
}

// pinning is a pinner that says so of each image.
func pinning(about func(core.Image) core.Pin) pinner {
	return pinner{pins: func(_ context.Context, images []core.Image) ([]core.Pin, error) {
		var pins []core.Pin
		for _, i := range images {
			pin := about(i)
			pin.Image = i.ID
			pins = append(pins, pin)
		}
		return pins, nil
	}}
}

func always(p core.Pinned) pinner {
	return pinning(func(core.Image) core.Pin { return core.Pin{Pinned: p} })
}

func unreachable(err error) pinner {
	return pinner{pins: func(context.Context, []core.Image) ([]core.Pin, error) { return nil, err }}
}

func imageID(n int) core.ImageID { return core.ImageID(fmt.Sprintf("%064x", n)) }

func twoImages() []core.Image {
	return []core.Image{{ID: imageID(1), Names: []string{"one"}, Labels: map[string]string{"k": "v"}}, {ID: imageID(2)}}
}

func TestPins(t *testing.T) {
	required := func(e hooks.Entry) hooks.Entry { e.Required = true; return e }
	ignored := func(e hooks.Entry) hooks.Entry { e.WhenUnavailable = hooks.Ignore; return e }
	hintless := func(e hooks.Entry) hooks.Entry { e.Hints = nil; return e }
	absent := fmt.Errorf("dial: %w", core.ErrEngineAbsent)
	fitting := store(t)
	foreign := fitting[1:]

	for _, test := range []struct {
		name           string
		entries        []hooks.Entry
		containers     []core.Container
		want           core.Pinned
		owners         []string
		reason, advice string
	}{
		{name: "no plugin at all", want: core.PinnedNo},
		{name: "nobody who can pin", entries: []hooks.Entry{entry("podman", failing(errDown))}, containers: fitting, want: core.PinnedNo},
		{name: "not pinned", entries: []hooks.Entry{entry("crio", always(core.PinnedNo))}, want: core.PinnedNo},
		{name: "pinned", entries: []hooks.Entry{entry("crio", always(core.PinnedYes))}, want: core.PinnedYes, owners: []string{"crio"},
			reason: "pinned by crio", advice: "unpin it in crio"},
		{name: "pinned, in words", entries: []hooks.Entry{entry("crio", pinning(func(core.Image) core.Pin {
			return core.Pin{Pinned: core.PinnedYes, Reason: "pinned\nby CRI-O", Advice: "ask", Owners: []string{"podman"}, Garbage: true}
		}))}, want: core.PinnedYes, owners: []string{"crio"}, reason: "pinned by CRI-O", advice: "ask"},
		{name: "pinned by two", entries: []hooks.Entry{entry("crio", always(core.PinnedYes)), entry("b", always(core.PinnedYes))},
			want: core.PinnedYes, owners: []string{"b", "crio"}, reason: "pinned by crio; pinned by b"},
		{name: "pinned by one while another is down", entries: []hooks.Entry{entry("a", unreachable(errDown)), entry("crio", always(core.PinnedYes)), entry("z", unreachable(errDown))},
			want: core.PinnedYes, owners: []string{"crio"}, reason: "pinned by crio"},
		{name: "not pinned by one while another is down", entries: []hooks.Entry{entry("crio", always(core.PinnedNo)), entry("a", unreachable(errDown))},
			want: core.PinnedUnknown, owners: []string{"a"}},
		{name: "down", entries: []hooks.Entry{entry("crio", unreachable(errDown))}, want: core.PinnedUnknown, owners: []string{"crio"},
			reason: "crio, which may pin it, cannot answer: connection refused",
			advice: `start crio, or set [plugin.crio] when_unavailable = "ignore" in config.toml to go on without its pins`},
		{name: "down, without containers of its own", entries: []hooks.Entry{entry("crio", unreachable(errDown))}, containers: foreign,
			want: core.PinnedUnknown, owners: []string{"crio"}},
		{name: "down and ignored", entries: []hooks.Entry{ignored(entry("crio", unreachable(errDown)))}, containers: fitting, want: core.PinnedNo},
		{name: "two that are down", entries: []hooks.Entry{entry("crio", unreachable(errDown)), entry("b", unreachable(errDown))},
			want: core.PinnedUnknown, owners: []string{"b", "crio"}, reason: "; b, which"},
		{name: "cannot tell", entries: []hooks.Entry{entry("crio", pinning(func(core.Image) core.Pin { return core.Pin{Reason: "it is damaged"} }))},
			want: core.PinnedUnknown, owners: []string{"crio"}, reason: "crio cannot tell whether it pins it: it is damaged", advice: "ignore"},
		{name: "cannot tell, and is ignored", entries: []hooks.Entry{ignored(entry("crio", always(core.PinnedUnknown)))}, want: core.PinnedNo},
		{name: "absent", entries: []hooks.Entry{entry("crio", unreachable(absent))}, containers: foreign, want: core.PinnedNo},
		{name: "absent on an empty store", entries: []hooks.Entry{entry("crio", unreachable(absent))}, want: core.PinnedNo},
		{name: "absent, but it left a container", entries: []hooks.Entry{entry("crio", unreachable(absent))}, containers: fitting,
			want: core.PinnedUnknown, owners: []string{"crio"}, reason: "which may pin it"},
		{name: "absent and without hints", entries: []hooks.Entry{hintless(entry("crio", unreachable(absent)))}, containers: foreign,
			want: core.PinnedUnknown, owners: []string{"crio"}},
		{name: "absent and required", entries: []hooks.Entry{required(entry("crio", unreachable(absent)))}, containers: foreign,
			want: core.PinnedUnknown, owners: []string{"crio"}, reason: "required to answer", advice: "required = false"},
	} {
		t.Run(test.name, func(t *testing.T) {
			images := twoImages()
			pins := registry(t, test.entries...).Pins(context.Background(), core.StoreInfo{}, images, test.containers)
			if len(pins) != len(images) {
				t.Fatalf("%d pins of %d images", len(pins), len(images))
			}
			for _, i := range images {
				p := pins[i.ID]
				if p.Image != i.ID || p.Pinned != test.want || p.Garbage || !slices.Equal(p.Owners, test.owners) ||
					!strings.Contains(p.Reason, test.reason) || !strings.Contains(p.Advice, test.advice) {
					t.Errorf("%+v", p)
				}
				if p.Pinned != core.PinnedNo && (p.Reason == "" || p.Advice == "") {
					t.Errorf("without words: %+v", p)
				}
			}
		})
	}
}

// TestPinsMisbehaviour: whatever a plugin does, the images are kept, and the call returns in time.
func TestPinsMisbehaviour(t *testing.T) {
	give := func(make func([]core.Image) []core.Pin) pinner {
		return pinner{pins: func(_ context.Context, i []core.Image) ([]core.Pin, error) { return make(i), nil }}
	}
	no := func(i []core.Image) []core.Pin {
		var pins []core.Pin
		for _, i := range i {
			pins = append(pins, core.Pin{Image: i.ID, Pinned: core.PinnedNo})
		}
		return pins
	}
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	for _, test := range []struct {
		name    string
		plugin  pinner
		garbage bool
		reason  string
	}{
		{"it hangs and ignores its context", pinner{pins: func(context.Context, []core.Image) ([]core.Pin, error) {
			<-release
			return nil, nil
		}}, false, "did not answer within"},
		{"it panics", pinner{pins: func(context.Context, []core.Image) ([]core.Pin, error) { panic("at the disco") }}, false, "at the disco"},
		{"it says nothing", give(func([]core.Image) []core.Pin { return nil }), true, "no pin of"},
		{"it leaves one out", give(func(i []core.Image) []core.Pin { return no(i[1:]) }), true, "no pin of"},
		{"it doubles one", give(func(i []core.Image) []core.Pin { return append(no(i[1:]), no(i[1:])...) }), true, "two pins"},
		{"it adds one", give(func(i []core.Image) []core.Pin { return append(no(i), core.Pin{Image: imageID(9)}) }), true, "3 pins of 2"},
		{"it swaps one", give(func(i []core.Image) []core.Pin { return append(no(i[1:]), core.Pin{Image: imageID(9)}) }), true, "not asked about"},
		{"a pin that does not exist", give(func(i []core.Image) []core.Pin {
			return append(no(i[1:]), core.Pin{Image: i[0].ID, Pinned: 7})
		}), true, "does not exist"},
		{"it floods", give(func(i []core.Image) []core.Pin {
			return append(no(i[1:]), core.Pin{Image: i[0].ID, Pinned: core.PinnedNo, Reason: strings.Repeat("x", 1<<20)})
		}), true, "too long"},
		{"it ruins what it was handed", give(func(i []core.Image) []core.Pin {
			for n := range i {
				i[n].ID, i[n].Labels["k"] = "", "ruined"
			}
			return nil
		}), false, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			bad := entry("bad", test.plugin)
			bad.ClaimTimeout = 100 * time.Millisecond
			images := twoImages()
			images[1].Labels = map[string]string{"k": "v"}
			began := time.Now()
			pins := registry(t, bad, entry("good", always(core.PinnedNo))).Pins(context.Background(), core.StoreInfo{}, images, nil)
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("took %s", took)
			}
			if images[0].ID != imageID(1) || images[0].Labels["k"] != "v" {
				t.Errorf("the caller's image is now %+v", images[0])
			}
			for _, i := range images {
				p := pins[i.ID]
				if p.Pinned != core.PinnedUnknown || !slices.Equal(p.Owners, []string{"bad"}) ||
					test.reason != "" && (p.Garbage != test.garbage || !strings.Contains(p.Reason, test.reason)) {
					t.Errorf("%+v, where unknown, garbage %v and %q are due", p, test.garbage, test.reason)
				}
			}
		})
	}
}

func TestCanceledCallerHasNoPins(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	e := entry("crio", pinner{pins: func(ctx context.Context, _ []core.Image) ([]core.Pin, error) {
		<-ctx.Done()
		return nil, errors.Join(core.ErrEngineAbsent, ctx.Err())
	}})
	e.WhenUnavailable = hooks.Ignore
	for id, p := range registry(t, e).Pins(ctx, core.StoreInfo{}, twoImages(), nil) {
		if p.Pinned != core.PinnedUnknown {
			t.Errorf("a call that was given up counts as %s for %s", p.Pinned, id.Short())
		}
	}
}

func TestClaimedLabelsAreACopy(t *testing.T) {
	labels := map[string]string{"k": "v"}
	claim := mine
	claim.Labels = labels
	h := registry(t, entry("podman", saying(claim))).Claim(context.Background(), core.StoreInfo{}, store(t))[id(1)]
	labels["k"] = "changed"
	if diff := cmp.Diff(map[string]string{"k": "v"}, h.Claim.Labels); diff != "" {
		t.Error(diff)
	}
}
