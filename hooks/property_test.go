package hooks_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/hooks"
)

// FuzzUnowned: whatever plugins answer, a container is unowned only if every plugin validly said
// that it is not its own, or failed without being required and without a fitting hint, or is to be
// ignored; and it is owned only where one plugin validly claims it and nobody is in doubt.
func FuzzUnowned(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16})
	f.Add([]byte{0x11, 3, 2, 2, 2, 0x21, 3, 1, 1, 1, 0x41, 0, 1, 1, 1})
	containers := store(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		next := func() byte {
			if len(data) == 0 {
				return 0
			}
			b := data[0]
			data = data[1:]
			return b
		}
		var entries []hooks.Entry
		var models []model
		for n := range 1 + int(next()%3) {
			m := model{settings: next(), manner: next() % 8}
			for range containers {
				m.words = append(m.words, next())
			}
			e := entry(fmt.Sprintf("p%d", n), m.plugin())
			e.Required = m.required()
			if m.ignored() {
				e.WhenUnavailable = hooks.Ignore
			}
			if m.hintless() {
				e.Hints = nil
			}
			entries = append(entries, e)
			models = append(models, m)
		}
		holdings := registry(t, entries...).Claim(context.Background(), core.StoreInfo{}, containers)
		for i, c := range containers {
			mayBe, claims := 0, 0
			for _, m := range models {
				switch {
				case m.valid() && m.ownership(i) == core.OwnershipMine:
					claims++
				case m.valid() && m.ownership(i) == core.OwnershipUnknown:
					mayBe++
				case m.valid():
				case m.required():
					mayBe++
				case !m.ignored() && (m.hintless() || i == 0):
					mayBe++
				}
			}
			var want core.HoldingKind
			switch {
			case claims > 1:
				want = core.Contested
			case mayBe > 0:
				want = core.Undetermined
			case claims == 1:
				want = core.Owned
			default:
				want = core.Unowned
			}
			if h := holdings[c.ID]; h.Kind != want {
				t.Errorf("container %d is %s, not %s: %+v of %+v", i+1, h.Kind, want, h, models)
			}
		}
	})
}

// model is a plugin made of fuzzed bytes, together with what it ought to count for.
type model struct {
	settings, manner byte
	words            []byte
}

func (m model) required() bool { return m.settings&1 != 0 }
func (m model) ignored() bool  { return !m.required() && m.settings&2 != 0 }
func (m model) hintless() bool { return m.settings&4 != 0 }

func (m model) ownership(i int) core.Ownership { return core.Ownership(m.words[i] % 5) }

func (m model) stateless(i int) bool { return m.words[i]&0x80 != 0 }

// valid is whether the whole answer holds.
func (m model) valid() bool {
	if m.manner != 0 {
		return false
	}
	for i := range m.words {
		if m.ownership(i) > core.OwnershipMine || (m.ownership(i) == core.OwnershipMine && m.stateless(i)) {
			return false
		}
	}
	return true
}

func (m model) plugin() hooks.Plugin {
	return fake{
		claim: func(_ context.Context, containers []core.Container) ([]core.Claim, error) {
			var claims []core.Claim
			for i, c := range containers {
				claim := core.Claim{Container: c.ID, Ownership: m.ownership(i), Use: core.UseIdle}
				if !m.stateless(i) {
					claim.State = core.StateStopped
				}
				claims = append(claims, claim)
			}
			switch m.manner {
			case 1:
				return claims, errors.New("down")
			case 2:
				panic("down")
			case 3:
				return claims[1:], nil
			case 4:
				return append(claims, claims[0]), nil
			case 5:
				claims[0].Container = id(99)
			case 6:
				return nil, nil
			case 7:
				claims[1] = claims[0]
			}
			return claims, nil
		},
		stop: func(context.Context, []core.Handle, time.Duration) []core.Outcome { return nil },
	}
}

// FuzzMetadataHint: only a JSON object that has the key and lacks the other one fits, and nothing
// makes the hints panic.
func FuzzMetadataHint(f *testing.F) {
	f.Add(`{"image-name":"x","image-id":"y","name":"z","created-at":1}`)
	f.Add(`{"image-name":"x","pod-id":""}`)
	f.Add(`[]`)
	f.Add(`{"image-name":`)
	f.Fuzz(func(t *testing.T, metadata string) {
		var object map[string]any
		want := core.Unowned
		if json.Unmarshal([]byte(metadata), &object) == nil {
			_, named := object["image-name"]
			_, crio := object["pod-id"]
			if named && !crio {
				want = core.Undetermined
			}
		}
		c := core.Container{ID: id(1), Metadata: metadata}
		h := registry(t, entry("podman", failing(errDown))).Claim(context.Background(), core.StoreInfo{}, []core.Container{c})
		if k := h[id(1)].Kind; k != want {
			t.Errorf("%q makes it %s, not %s", metadata, k, want)
		}
	})
}
