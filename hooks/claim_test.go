package hooks_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/hooks"
)

var errDown = errors.New("connection refused")

type lockedError struct{}

func (lockedError) Error() string  { return "database is locked" }
func (lockedError) Advice() string { return "mend it" }

func TestHoldings(t *testing.T) {
	required := func(e hooks.Entry) hooks.Entry { e.Required = true; return e }
	ignored := func(e hooks.Entry) hooks.Entry { e.WhenUnavailable = hooks.Ignore; return e }
	hintless := func(e hooks.Entry) hooks.Entry { e.Hints = nil; return e }

	for _, test := range []struct {
		name    string
		entries []hooks.Entry
		// of container 1, which fits the hints, and of 2 and 3, which do not
		fits, others core.HoldingKind
		owners       []string
		// words that the holding of container 1 has
		reason, advice string
	}{
		{name: "no plugin at all", fits: core.Unowned, others: core.Unowned},
		{name: "nobody's", entries: []hooks.Entry{entry("podman", saying(notMine)), entry("buildah", saying(notMine))},
			fits: core.Unowned, others: core.Unowned},
		{name: "one owner", entries: []hooks.Entry{entry("podman", saying(mine)), entry("buildah", saying(notMine))},
			fits: core.Owned, others: core.Owned, owners: []string{"podman"}},
		{name: "two owners", entries: []hooks.Entry{entry("podman", saying(mine)), entry("buildah", saying(mine))},
			fits: core.Contested, others: core.Contested, owners: []string{"buildah", "podman"}, reason: "buildah and podman"},
		{name: "an owner that cannot tell", entries: []hooks.Entry{entry("podman", saying(unsure))},
			fits: core.Undetermined, others: core.Undetermined, owners: []string{"podman"}, reason: "cannot tell", advice: "again"},
		{name: "an owner that cannot tell is not ignored", entries: []hooks.Entry{ignored(entry("podman", saying(unsure)))},
			fits: core.Undetermined, others: core.Undetermined, owners: []string{"podman"}},
		{name: "a plugin that is down holds what fits its hints", entries: []hooks.Entry{entry("podman", failing(errDown))},
			fits: core.Undetermined, others: core.Unowned, owners: []string{"podman"},
			reason: "podman, which may own it, cannot answer: connection refused",
			advice: `start podman, or set [plugin.podman] when_unavailable = "ignore" in config.toml to treat its containers as nobody's`},
		{name: "a plugin that knows better than to be started", entries: []hooks.Entry{entry("podman", failing(fmt.Errorf("ask: %w", lockedError{})))},
			fits: core.Undetermined, others: core.Unowned, owners: []string{"podman"},
			reason: "ask: database is locked", advice: `mend it, or set [plugin.podman] when_unavailable`},
		{name: "a plugin that is down and without hints may own anything",
			entries: []hooks.Entry{hintless(entry("podman", failing(errDown)))},
			fits:    core.Undetermined, others: core.Undetermined, owners: []string{"podman"}},
		{name: "what another one claims is not in doubt for a plugin without hints",
			entries: []hooks.Entry{hintless(entry("podman", failing(errDown))), entry("buildah", saying(mine))},
			fits:    core.Owned, others: core.Owned, owners: []string{"buildah"}},
		{name: "but for a required one it is",
			entries: []hooks.Entry{required(hintless(entry("podman", failing(errDown)))), entry("buildah", saying(mine))},
			fits:    core.Undetermined, others: core.Undetermined, owners: []string{"podman"}},
		{name: "a required plugin that is down", entries: []hooks.Entry{required(entry("podman", failing(errDown))), entry("buildah", saying(mine))},
			fits: core.Undetermined, others: core.Undetermined, owners: []string{"podman"},
			reason: "required to answer", advice: "[plugin.podman] required = false"},
		{name: "a plugin that is down and ignored", entries: []hooks.Entry{ignored(entry("podman", failing(errDown)))},
			fits: core.Unowned, others: core.Unowned, reason: `podman may own it and did not answer, but is set to when_unavailable = "ignore"`},
		{name: "another one's claim does not lift a doubt", entries: []hooks.Entry{entry("podman", failing(errDown)), entry("buildah", saying(mine))},
			fits: core.Undetermined, others: core.Owned, owners: []string{"podman"}, reason: "buildah claims it"},
		{name: "ignored where another one claims", entries: []hooks.Entry{ignored(entry("podman", failing(errDown))), entry("buildah", saying(mine))},
			fits: core.Owned, others: core.Owned, owners: []string{"buildah"}, reason: "did not answer"},
		{name: "two that are down", entries: []hooks.Entry{entry("podman", failing(errDown)), entry("buildah", failing(errDown))},
			fits: core.Undetermined, others: core.Unowned, owners: []string{"buildah", "podman"}, reason: "; buildah"},
		{name: "contested while a third is down", entries: []hooks.Entry{entry("a", saying(mine)), entry("b", saying(mine)), entry("c", failing(errDown))},
			fits: core.Contested, others: core.Contested, owners: []string{"a", "b"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			containers := store(t)
			holdings := registry(t, test.entries...).Claim(context.Background(), core.StoreInfo{}, containers)
			if len(holdings) != len(containers) {
				t.Fatalf("%d holdings of %d containers", len(holdings), len(containers))
			}
			h := holdings[id(1)]
			if h.Kind != test.fits {
				t.Errorf("the container that fits is %s, not %s", h.Kind, test.fits)
			}
			for _, n := range []int{2, 3} {
				if kind := holdings[id(n)].Kind; kind != test.others {
					t.Errorf("container %d is %s, not %s", n, kind, test.others)
				}
			}
			if diff := cmp.Diff(test.owners, h.Owners); diff != "" {
				t.Errorf("owners: %s", diff)
			}
			if !strings.Contains(h.Reason, test.reason) || !strings.Contains(h.Advice, test.advice) {
				t.Errorf("reason %q lacks %q, or advice %q lacks %q", h.Reason, test.reason, h.Advice, test.advice)
			}
			if h.Kind == core.Undetermined && (h.Reason == "" || h.Advice == "") {
				t.Errorf("undetermined without a reason (%q) or advice (%q)", h.Reason, h.Advice)
			}
		})
	}
}

// TestMisbehaviour: whatever a plugin does, its container is kept, another plugin's answer stands,
// and the call returns within the deadline.
func TestMisbehaviour(t *testing.T) {
	claims := func(make func([]core.Container) []core.Claim) fake {
		return fake{claim: func(_ context.Context, c []core.Container) ([]core.Claim, error) { return make(c), nil }}
	}
	each := func(claim core.Claim) func([]core.Container) []core.Claim {
		return func(containers []core.Container) []core.Claim {
			var all []core.Claim
			for _, c := range containers {
				claim.Container = c.ID
				all = append(all, claim)
			}
			return all
		}
	}
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	for _, test := range []struct {
		name    string
		plugin  fake
		garbage bool
		reason  string
	}{
		{"it hangs and ignores its context", fake{claim: func(context.Context, []core.Container) ([]core.Claim, error) {
			<-release
			return nil, nil
		}}, false, "did not answer within"},
		{"it returns its context's error", fake{claim: func(ctx context.Context, _ []core.Container) ([]core.Claim, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}, false, "did not answer within"},
		{"it panics", fake{claim: func(context.Context, []core.Container) ([]core.Claim, error) { panic("at the disco") }},
			false, "at the disco"},
		{"it panics with an error of the runtime", fake{claim: func(_ context.Context, c []core.Container) ([]core.Claim, error) {
			return []core.Claim{{Container: c[len(c)].ID}}, nil
		}}, false, "broke"},
		{"it says nothing", claims(func([]core.Container) []core.Claim { return nil }), true, "made no claim about"},
		{"it leaves one out", claims(func(c []core.Container) []core.Claim { return each(notMine)(c[1:]) }), true, "made no claim about"},
		{"it doubles one", claims(func(c []core.Container) []core.Claim {
			return append(each(notMine)(c[1:]), core.Claim{Container: c[1].ID, Ownership: core.OwnershipNotMine})
		}), true, "two claims"},
		{"it adds one", claims(func(c []core.Container) []core.Claim {
			return append(each(notMine)(c), core.Claim{Container: id(9), Ownership: core.OwnershipNotMine})
		}), true, "claims about"},
		{"it swaps one", claims(func(c []core.Container) []core.Claim {
			return append(each(notMine)(c[1:]), core.Claim{Container: id(9), Ownership: core.OwnershipNotMine})
		}), true, "not asked about"},
		{"it floods", claims(func(c []core.Container) []core.Claim { return make([]core.Claim, 1<<16) }), true, "65536 claims"},
		{"it floods with evidence", claims(each(core.Claim{Ownership: core.OwnershipMine, State: core.StateStopped, Evidence: make([]core.Evidence, 1<<16)})), true, "too long"},
		{"it floods with text", claims(each(core.Claim{Ownership: core.OwnershipMine, State: core.StateStopped, Group: strings.Repeat("x", 1<<20)})), true, "too long"},
		{"it floods with labels", claims(each(core.Claim{Ownership: core.OwnershipMine, State: core.StateStopped, Labels: map[string]string{"x": strings.Repeat("x", 8<<20)}})), true, "too long"},
		{"an ownership that does not exist", claims(each(core.Claim{Ownership: 7})), true, "ownership"},
		{"a use that does not exist", claims(each(core.Claim{Ownership: core.OwnershipMine, State: core.StateStopped, Use: -1})), true, "use"},
		{"its own without a state", claims(each(core.Claim{Ownership: core.OwnershipMine, Use: core.UseIdle})), true, "state"},
		{"it takes nameless ones along", claims(each(core.Claim{Ownership: core.OwnershipMine, State: core.StateStopped, TakesAlong: []core.ContainerID{""}})), true, "along"},
		{"it mounts a nameless image", claims(each(core.Claim{Ownership: core.OwnershipMine, State: core.StateStopped, ImageVolumes: []core.ImageID{""}})), true, "image"},
	} {
		t.Run(test.name, func(t *testing.T) {
			bad := entry("bad", test.plugin)
			bad.ClaimTimeout = 100 * time.Millisecond
			good := entry("good", answering(func(c core.Container) core.Claim {
				if c.ID == id(2) {
					return mine
				}
				return notMine
			}))
			began := time.Now()
			holdings := registry(t, bad, good).Claim(context.Background(), core.StoreInfo{}, store(t))
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("took %s", took)
			}
			h := holdings[id(1)]
			if h.Kind != core.Undetermined || h.Garbage != test.garbage || !strings.Contains(h.Reason, test.reason) {
				t.Errorf("%+v, where undetermined, garbage %v and %q are due", h, test.garbage, test.reason)
			}
			if o := holdings[id(2)].Owner(); o != "good" {
				t.Errorf("the owner of container 2 is %q", o)
			}
			if k := holdings[id(3)].Kind; k != core.Unowned {
				t.Errorf("container 3 is %s", k)
			}
		})
	}
}

func TestPluginsCannotReachEachOther(t *testing.T) {
	vandal := fake{claim: func(_ context.Context, c []core.Container) ([]core.Claim, error) {
		for i := range c {
			c[i].ID, c[i].Metadata = id(99), "{}"
			if len(c[i].Names) > 0 {
				c[i].Names[0] = "vandal"
			}
		}
		return nil, nil
	}}
	containers := store(t)
	h := registry(t, entry("vandal", vandal), entry("podman", saying(mine))).Claim(context.Background(), core.StoreInfo{}, containers)
	if containers[0].ID != id(1) || containers[0].Names[0] != "one" {
		t.Errorf("the caller's container is now %+v", containers[0])
	}
	if h[id(3)].Owner() != "podman" {
		t.Errorf("container 3: %+v", h[id(3)])
	}
}

func TestAnswersAreOnOurTerms(t *testing.T) {
	liar := saying(core.Claim{Ownership: core.OwnershipMine, State: "levitating", Use: core.UseIdle,
		TakesAlong: []core.ContainerID{id(1), id(2)},
		Evidence:   []core.Evidence{{Source: core.SourceKernel, Detail: "trust me"}}})
	h := registry(t, entry("podman", liar)).Claim(context.Background(), core.StoreInfo{}, store(t))[id(1)]
	if h.Claim.State != core.StateRunning || h.Claim.Use != core.UseUnknown {
		t.Errorf("an unknown state counts as %s, %s", h.Claim.State, h.Claim.Use)
	}
	if h.Claim.Evidence[0].Source != "podman" {
		t.Errorf("a plugin spoke for %s", h.Claim.Evidence[0].Source)
	}
	if diff := cmp.Diff([]core.ContainerID{id(2)}, h.Claim.TakesAlong); diff != "" {
		t.Errorf("takes along: %s", diff)
	}
}

func TestCanceledCallerIsNoAnswer(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	e := entry("podman", fake{claim: func(ctx context.Context, _ []core.Container) ([]core.Claim, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	e.WhenUnavailable = hooks.Ignore
	if k := registry(t, e).Claim(ctx, core.StoreInfo{}, store(t))[id(1)].Kind; k != core.Undetermined {
		t.Errorf("a call that was given up counts as %s", k)
	}
}

func TestFileHints(t *testing.T) {
	containers := store(t)
	if err := os.WriteFile(filepath.Join(containers[2].Directory, "buildah.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// A directory that cannot be looked into: "not a directory" is not "not there".
	if err := os.Remove(containers[1].Directory); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(containers[1].Directory, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	e := entry("buildah", failing(errDown))
	e.Hints = []core.ClaimHint{{File: "buildah.json"}, {MetadataKeyAbsent: "pod-id"}}
	holdings := registry(t, e).Claim(context.Background(), core.StoreInfo{}, containers)
	for n, want := range map[int]core.HoldingKind{1: core.Unowned, 2: core.Undetermined, 3: core.Undetermined} {
		if k := holdings[id(n)].Kind; k != want {
			t.Errorf("container %d is %s, not %s", n, k, want)
		}
	}
}

func TestNoMetadataHint(t *testing.T) {
	e := entry("buildah", failing(errDown))
	e.Hints = []core.ClaimHint{{File: "buildah.json"}, {NoMetadata: true}}
	holdings := registry(t, e).Claim(context.Background(), core.StoreInfo{}, store(t))
	for n, want := range map[int]core.HoldingKind{1: core.Unowned, 2: core.Unowned, 3: core.Undetermined} {
		if k := holdings[id(n)].Kind; k != want {
			t.Errorf("container %d is %s, not %s", n, k, want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	p := saying(notMine)
	for name, entries := range map[string][]hooks.Entry{
		"no name":              {{Plugin: p}},
		"no plugin":            {{Name: "podman"}},
		"a name twice":         {{Plugin: p, Name: "podman"}, {Plugin: p, Name: "podman"}},
		"required and ignored": {{Plugin: p, Name: "podman", Required: true, WhenUnavailable: hooks.Ignore}},
	} {
		if _, err := hooks.New(entries, hooks.Options{}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestDescribe(t *testing.T) {
	named := func(name string) fake {
		return fake{describe: func(context.Context) (core.Description, error) {
			return core.Description{Name: name, EngineVersion: "5.4.2"}, nil
		}}
	}
	r := registry(t, entry("podman", named("podman")), entry("buildah", named("podman")))
	all := r.Describe(context.Background())
	if all[0].State != hooks.StateReady || all[0].EngineVersion != "5.4.2" {
		t.Errorf("podman: %+v", all[0])
	}
	if all[1].State != hooks.StateIncompatible || !strings.Contains(all[1].LastError, `"podman"`) {
		t.Errorf("buildah may call itself podman: %+v", all[1])
	}
	if diff := cmp.Diff([]string{"podman", "buildah"}, r.Names()); diff != "" {
		t.Error(diff)
	}
}
