package transcribe_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/service"
	"github.com/unmoor/unmoor/internal/transcribe"
	"github.com/unmoor/unmoor/internal/wire"
	removal "github.com/unmoor/unmoor/varlink/removal"
)

const models = 100

// random makes models.
type random struct{ *rand.Rand }

var errType = reflect.TypeFor[error]()

// fill sets every exported field of what v points at, some of them to nothing.
func (r random) fill(v any) { r.set(reflect.ValueOf(v).Elem()) }

func (r random) set(v reflect.Value) {
	switch at := v.Addr().Interface().(type) {
	case *time.Time:
		if r.IntN(4) > 0 {
			zone := time.FixedZone("", (r.IntN(27)-13)*3600)
			*at = time.Unix(r.Int64N(4e9), r.Int64N(1e9)).In(zone)
		}
		return
	case *core.Use:
		*at = core.Use(r.IntN(3))
		return
	case *core.HoldingKind:
		*at = core.HoldingKind(r.IntN(4))
		return
	case *core.Force:
		*at = core.Force(r.IntN(4))
		return
	case *core.Fate:
		*at = core.Fate(r.IntN(3))
		return
	case *service.Outcome:
		r.outcome(at)
		return
	case *service.Pruned:
		r.pruned(at)
		return
	case *service.Usage:
		r.totals(at)
		return
	case *error:
		*at = r.error()
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int, reflect.Int64:
		if r.IntN(4) > 0 {
			v.SetInt(r.Int64N(1 << 40))
		}
	case reflect.Uint64:
		if r.IntN(4) > 0 {
			v.SetUint(r.Uint64N(1 << 60))
		}
	case reflect.String:
		if r.IntN(4) > 0 {
			v.SetString(r.text())
		}
	case reflect.Pointer:
		if r.IntN(2) > 0 {
			p := reflect.New(v.Type().Elem())
			r.set(p.Elem())
			v.Set(p)
		}
	case reflect.Slice:
		s := reflect.MakeSlice(v.Type(), r.IntN(4), 4)
		for i := range s.Len() {
			r.set(s.Index(i))
		}
		v.Set(s)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				r.set(v.Field(i))
			}
		}
		if f, ok := v.Addr().Interface().(*service.Finding); ok && r.IntN(2) == 0 {
			f.Err = nil
		}
	default:
		panic("a field of kind " + v.Kind().String())
	}
}

func (r random) text() string {
	words := []string{"web", "db\x1b[31m", "<&>", "\u2028", "ü", "a b", "\n", `"`, "null", "\x00", strings.Repeat("f", 64)}
	return words[r.IntN(len(words))] + words[r.IntN(len(words))]
}

// outcome makes one whose parts belong together.
func (r random) outcome(o *service.Outcome) {
	r.fill(&o.Refusals)
	r.fill(&o.Completed)
	r.fill(&o.Problems)
	for i := range o.Refusals {
		var ambiguous *core.AmbiguousError
		if errors.As(o.Refusals[i].Err, &ambiguous) {
			ambiguous.Reference = o.Refusals[i].Reference
		}
	}
	o.Plan = new(core.Plan)
	r.fill(o.Plan)
	for i := range o.Plan.Removals {
		of := &o.Plan.Removals[i]
		of.Image, of.Container = "", ""
		if r.IntN(2) == 0 {
			of.Image = core.ImageID(r.text())
		} else {
			of.Container = core.ContainerID(r.text())
		}
		reference := r.text()
		of.Reference = reference
		if of.Container != "" {
			of.Reference = string(of.Container)
		}
		o.References, o.Names = append(o.References, reference), append(o.Names, r.text())
		var result core.Result
		r.fill(&result)
		result.Removal = *of
		o.Results = append(o.Results, result)
	}
}

// pruned makes one whose parts belong together.
func (r random) pruned(p *service.Pruned) {
	p.Outcome = new(service.Outcome)
	r.outcome(p.Outcome)
	for _, v := range []any{&p.Kept, &p.Bytes, &p.AtLeast, &p.Disk, &p.After, &p.Wanted, &p.Thresholds} {
		r.fill(v)
	}
}

// totals makes an account without its images, containers and layers.
func (r random) totals(u *service.Usage) {
	u.Account = new(core.Account)
	for _, v := range []any{u.Account, &u.Disk, &u.Time} {
		r.fill(v)
	}
	u.Account.Images, u.Account.Containers, u.Account.Layers = nil, nil, nil
	u.Account.Store.GraphOptions, u.Account.Store.Default = nil, false
}

// error makes one that somebody branches on, wrapped, or one that nobody does.
func (r random) error() error {
	busy := new(core.BusyError)
	r.fill(busy)
	all := []error{
		errors.New(r.text()), core.ErrImageUnknown, core.ErrContainerUnknown, core.ErrStillInUse, core.ErrImageInUse, context.Canceled,
		core.ErrPlanStale, core.ErrReadOnly, core.ErrStoreUnavailable, fs.ErrPermission, busy,
		&core.AmbiguousError{Candidates: []string{r.text(), r.text()}},
	}
	err := all[r.IntN(len(all))]
	switch r.IntN(3) {
	case 0:
		return fmt.Errorf("%s: %w", r.text(), err)
	case 1:
		return errors.Join(errors.New(r.text()), err)
	}
	return err
}

// sameError is whether two errors are alike in their words and in what can be branched on.
func sameError(a, b error) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	if a.Error() != b.Error() {
		return false
	}
	for _, is := range []error{core.ErrImageUnknown, core.ErrContainerUnknown, core.ErrStillInUse, core.ErrImageInUse, context.Canceled,
		core.ErrPlanStale, core.ErrReadOnly, core.ErrStoreUnavailable, fs.ErrPermission} {
		if errors.Is(a, is) != errors.Is(b, is) {
			return false
		}
	}
	var busyA, busyB *core.BusyError
	var ambiguousA, ambiguousB *core.AmbiguousError
	return errors.As(a, &busyA) == errors.As(b, &busyB) && cmp.Equal(busyA, busyB, values) &&
		errors.As(a, &ambiguousA) == errors.As(b, &ambiguousB) && cmp.Equal(ambiguousA, ambiguousB, values)
}

// values compares what is no error. Times are printed in the zone that they have.
var values = cmp.Options{
	cmpopts.EquateEmpty(), cmpopts.IgnoreUnexported(core.Plan{}, core.Finding{}),
	cmp.Comparer(func(a, b time.Time) bool { return a.Format(time.RFC3339Nano) == b.Format(time.RFC3339Nano) }),
}

var same = cmp.Options{values, cmp.FilterPath(func(p cmp.Path) bool { return p.Last().Type() == errType }, cmp.Comparer(sameError))}

// roundTrip writes random models, has them go through JSON, and reads them back.
func roundTrip[M, W any](t *testing.T, from func(M) W, to func(W) (M, error)) {
	t.Helper()
	r := random{rand.New(rand.NewPCG(1, 2))}
	for i := range models {
		var model M
		if p := reflect.ValueOf(&model).Elem(); p.Kind() == reflect.Pointer {
			p.Set(reflect.New(p.Type().Elem()))
			r.set(p.Elem())
		} else {
			r.fill(&model)
		}
		text, err := json.Marshal(from(model))
		if err != nil {
			t.Fatal(err)
		}
		if unquoted := strings.ReplaceAll(string(text), `\"`, ""); strings.Contains(unquoted, ":null") || strings.Contains(unquoted, "[null") {
			t.Fatalf("model %d is written with a null: %s", i, text)
		}
		var received W
		if err := wire.Decode(text, &received); err != nil {
			t.Fatalf("model %d: %v in %s", i, err, text)
		}
		back, err := to(received)
		if err != nil {
			t.Fatalf("model %d: %v in %s", i, err, text)
		}
		if diff := cmp.Diff(model, back, same); diff != "" {
			t.Fatalf("model %d (-sent +read):\n%s", i, diff)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	t.Run("container", func(t *testing.T) { roundTrip(t, transcribe.FromContainer, transcribe.ToContainer) })
	t.Run("image", func(t *testing.T) { roundTrip(t, transcribe.FromImage, transcribe.ToImage) })
	t.Run("outcome", func(t *testing.T) { roundTrip(t, transcribe.FromOutcome, transcribe.ToOutcome) })
	t.Run("explanation", func(t *testing.T) { roundTrip(t, transcribe.FromExplanation, transcribe.ToExplanation) })
	t.Run("examination", func(t *testing.T) { roundTrip(t, transcribe.FromExamination, transcribe.ToExamination) })
	t.Run("loaded image", func(t *testing.T) {
		roundTrip(t, func(i core.LoadedImage) removal.LoadedImage {
			i.ID += "x" // there is none without an ID
			return transcribe.FromLoadedImage(i)
		}, func(w removal.LoadedImage) (core.LoadedImage, error) {
			i, err := transcribe.ToLoadedImage(w)
			i.ID = i.ID[:len(i.ID)-1]
			return i, err
		})
	})
	t.Run("copy progress", func(t *testing.T) { roundTrip(t, transcribe.FromCopyProgress, transcribe.ToCopyProgress) })
	t.Run("pruned", func(t *testing.T) {
		roundTrip(t, transcribe.FromPruned, func(p removal.Pruning) (*service.Pruned, error) { return transcribe.ToPruned(p, false) })
	})
	t.Run("image usage", func(t *testing.T) { roundTrip(t, transcribe.FromImageUsage, transcribe.ToImageUsage) })
	t.Run("container usage", func(t *testing.T) { roundTrip(t, transcribe.FromContainerUsage, transcribe.ToContainerUsage) })
	t.Run("layer usage", func(t *testing.T) { roundTrip(t, transcribe.FromLayerUsage, transcribe.ToLayerUsage) })
	t.Run("usage totals", func(t *testing.T) { roundTrip(t, transcribe.FromUsageTotals, transcribe.ToUsageTotals) })
	t.Run("plugin", func(t *testing.T) { roundTrip(t, transcribe.FromPlugin, transcribe.ToPlugin) })
	t.Run("event", func(t *testing.T) { roundTrip(t, transcribe.FromEvent, transcribe.ToEvent) })
}

// Of the error of a step the words alone are told.
func TestProgress(t *testing.T) {
	r := random{rand.New(rand.NewPCG(3, 4))}
	for range models {
		var p core.Progress
		if r.fill(&p); r.IntN(2) == 0 {
			p.Err = nil
		}
		back, err := transcribe.ToProgress(transcribe.FromProgress(p))
		if err != nil {
			t.Fatal(err)
		}
		if (back.Err == nil) != (p.Err == nil) || p.Err != nil && back.Err.Error() != p.Err.Error() {
			t.Fatalf("%v became %v", p.Err, back.Err)
		}
		p.Err, back.Err = nil, nil
		if diff := cmp.Diff(p, back, same); diff != "" {
			t.Fatal(diff)
		}
	}
}
