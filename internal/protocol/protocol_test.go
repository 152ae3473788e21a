package protocol

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/wire"
	iounmoorplugin "github.com/unmoor/unmoor/varlink/plugin"
)

// random makes values of the model that can cross.
type random struct{ *rand.Rand }

func (r random) id() string {
	return fmt.Sprintf("%016x%016x%016x%016x", r.Uint64(), r.Uint64(), r.Uint64(), r.Uint64())
}

func (r random) text() string {
	texts := []string{"", "a", "docker.io/library/nginx:latest", "ö \u2028 <&>", "\x00\x1f\"\\", strings.Repeat("x", 300)}
	return texts[r.IntN(len(texts))]
}

func (r random) path() string {
	return []string{"", "/", "/var/lib/containers/storage/x", "/ü \n/merged"}[r.IntN(4)]
}

func (r random) bool() bool { return r.IntN(2) == 0 }

func (r random) time() time.Time {
	if r.bool() {
		return time.Time{}
	}
	return time.Unix(r.Int64N(1<<32), r.Int64N(1e9))
}

func many[T any](r random, one func() T) []T {
	var all []T
	for range r.IntN(4) {
		all = append(all, one())
	}
	return all
}

func (r random) store() core.StoreInfo {
	return core.StoreInfo{GraphRoot: "/var/lib/" + r.text(), RunRoot: "/run/" + r.text(), GraphDriver: "overlay",
		GraphOptions: many(r, r.text), Default: r.bool()}
}

func (r random) optionalID() string {
	if r.bool() {
		return ""
	}
	return r.id()
}

func (r random) container() core.Container {
	return core.Container{ID: core.ContainerID(r.id()), Names: many(r, r.text), ImageID: core.ImageID(r.optionalID()),
		LayerID: core.LayerID(r.optionalID()), Created: r.time(), Metadata: r.text(), BigDataNames: many(r, r.text),
		Volatile: r.bool(), Directory: r.path(), RunDirectory: r.path(),
		Layer: core.Layer{ID: core.LayerID(r.optionalID()), Missing: r.bool(), MountCount: r.IntN(3), Directory: r.path(),
			MountPoint: r.path(), UpperDir: r.path(), Driver: r.text()}}
}

func (r random) image() core.Image {
	return core.Image{ID: core.ImageID(r.id()), Names: many(r, r.text), Digests: many(r, r.text), ManifestList: r.bool()}
}

func (r random) evidence() core.Evidence {
	e := core.Evidence{Kind: core.EvidenceKind(r.text()), Detail: r.text(), Path: r.path(), Time: r.time()}
	if r.bool() {
		e.Process = &core.Process{PID: 1 + r.IntN(1<<22), StartTime: r.Uint64() >> 1, Command: r.text(), UID: r.IntN(1<<32) - 1,
			Cgroup: r.path(), Unit: r.text(), OnHost: r.bool()}
	}
	return e
}

func (r random) claim() core.Claim {
	c := core.Claim{Container: core.ContainerID(r.id()), Ownership: core.Ownership(r.IntN(3)), Use: core.Use(r.IntN(3)),
		State: core.State([]string{"created", "running", "stopped", "dreaming"}[r.IntN(4)]), DisplayName: r.text(), Group: r.text(),
		TakesAlong:   many(r, func() core.ContainerID { return core.ContainerID(r.id()) }),
		ImageVolumes: many(r, func() core.ImageID { return core.ImageID(r.id()) }), Revision: r.text(), Evidence: many(r, r.evidence)}
	for range r.IntN(3) {
		if c.Labels == nil {
			c.Labels = make(map[string]string)
		}
		c.Labels[r.text()] = r.text()
	}
	return c
}

func (r random) handle() core.Handle {
	h := core.Handle{Container: r.container(), Claim: r.claim()}
	h.Claim.Container = h.Container.ID
	return h
}

func (r random) outcome() core.Outcome {
	o := core.Outcome{Container: core.ContainerID(r.id()), Along: many(r, func() core.ContainerID { return core.ContainerID(r.id()) })}
	switch r.IntN(5) {
	case 0:
		o.Err = fmt.Errorf("it runs: %w", core.ErrStillInUse)
	case 1:
		o.Err = fmt.Errorf("it is crio's: %w", core.ErrNotOwner)
	case 2:
		o.Err = fmt.Errorf("it was started anew: %w", core.ErrPlanStale)
	case 3:
		o.Err = errors.New("the disk is full")
	default:
		o.StorageRemoved = r.bool()
	}
	return o
}

func (r random) pin() core.Pin {
	return core.Pin{Image: core.ImageID(r.id()), Pinned: core.Pinned(r.IntN(3)), Reason: r.text(), Advice: r.text()}
}

func (r random) description() Description {
	d := Description{Description: core.Description{Name: "a-1", Engine: "An Engine", EngineVersion: r.text()},
		Versions: []int64{1, 1 + r.Int64N(5)}, Ready: r.bool(),
		Capabilities: Capabilities{Stop: r.bool(), Remove: r.bool(), Pin: r.bool(), List: r.bool(), Build: r.bool()}}
	d.EngineVersion = strings.TrimRight(d.EngineVersion, "x")
	d.Hints = many(r, func() core.ClaimHint {
		return core.ClaimHint{File: "f.json", MetadataKey: r.text(), MetadataKeyAbsent: r.text(), NoMetadata: r.bool()}
	})
	return d
}

// across sends v as JSON and reads it as strictly as a reply is read.
func across[W any](t *testing.T, v W) W {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var read W
	if err := wire.Decode(text, &read); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return read
}

// sameModel compares values of the model as their users do.
func sameModel() cmp.Options {
	return cmp.Options{cmpopts.EquateEmpty(), cmp.Comparer(time.Time.Equal), cmp.Comparer(func(a, b error) bool {
		return (a == nil) == (b == nil) && (a == nil || a.Error() == b.Error() &&
			errors.Is(a, core.ErrStillInUse) == errors.Is(b, core.ErrStillInUse) &&
			errors.Is(a, core.ErrNotOwner) == errors.Is(b, core.ErrNotOwner) &&
			errors.Is(a, core.ErrPlanStale) == errors.Is(b, core.ErrPlanStale))
	})}
}

func round[M, W any](t *testing.T, m M, from func(M) (W, error), to func(W) (M, error)) {
	t.Helper()
	w, err := from(m)
	if err != nil {
		t.Fatalf("%v: %+v", err, m)
	}
	got := across(t, w)
	if d := cmp.Diff(w, got); d != "" {
		t.Errorf("JSON changes it (-sent +read):\n%s", d)
	}
	back, err := to(got)
	if err != nil {
		t.Fatalf("%v: %+v", err, got)
	}
	if d := cmp.Diff(m, back, sameModel()); d != "" {
		t.Errorf("it comes out otherwise (-in +out):\n%s", d)
	}
	again, err := from(back)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(w, again); d != "" {
		t.Errorf("it is sent otherwise the second time (-first +second):\n%s", d)
	}
}

// TestRoundTrip: whatever crosses comes out as it went in, by strict reading.
func TestRoundTrip(t *testing.T) {
	for seed := range uint64(500) {
		r := random{rand.New(rand.NewPCG(seed, 0))}
		round(t, r.store(), FromStore, ToStore)
		round(t, r.container(), FromContainer, ToContainer)
		round(t, r.image(), FromImage, ToImage)
		round(t, r.claim(), FromClaim, func(w iounmoorplugin.Report) (core.Claim, error) { return ToClaim(w, time.Time{}) })
		round(t, r.handle(), FromHandle, ToHandle)
		round(t, r.outcome(), FromOutcome, ToOutcome)
		round(t, r.pin(), FromPin, ToPin)
		round(t, r.description(), FromDescription, ToDescription)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// TestEveryField: a field that the model gains has to cross too, or be named here.
func TestEveryField(t *testing.T) {
	stays := map[string]bool{
		"Layer.Orphan":  true, // of layers without a container
		"Image.Created": true, "Image.Layer": true, "Image.OwnLayers": true, "Image.ReadOnly": true, "Image.Instances": true,
		"Image.Parent": true, "Image.Labels": true, "Image.LabelsKnown": true, "Image.Size": true, "Image.UniqueSize": true,
		"Image.LayerSizes": true, "Image.Stored": true,
		"Pin.Owners": true, "Pin.Garbage": true, // the hooks' own
		"Evidence.Source": true, // the plugin's name, by the hooks
	}
	r := random{rand.New(rand.NewPCG(1, 2))}
	set := make(map[string]bool)
	var note func(v reflect.Value)
	note = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer, reflect.Interface:
			if !v.IsNil() {
				note(v.Elem())
			}
		case reflect.Slice:
			for i := range v.Len() {
				note(v.Index(i))
			}
		case reflect.Struct:
			if v.Type().PkgPath() != reflect.TypeFor[core.Claim]().PkgPath() {
				return
			}
			for i := range v.NumField() {
				name := v.Type().Name() + "." + v.Type().Field(i).Name
				set[name] = set[name] || !v.Field(i).IsZero()
				note(v.Field(i))
			}
		default:
		}
	}
	for range 200 {
		for _, v := range []any{r.store(), r.handle(), r.image(), r.outcome(), r.pin(), r.description().Description} {
			note(reflect.ValueOf(v))
		}
	}
	for name, used := range set {
		if !used && !stays[name] {
			t.Errorf("%s does not cross", name)
		}
	}
}

const hexID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// TestStrict: what breaks a rule is an error that names it, and never a value.
func TestStrict(t *testing.T) {
	container := func(change func(*iounmoorplugin.Container)) func() error {
		return func() error {
			c := iounmoorplugin.Container{Id: hexID, Created: "2026-01-02T03:04:05.5+01:00"}
			change(&c)
			_, err := ToContainer(c)
			return err
		}
	}
	report := func(change func(*iounmoorplugin.Report)) func() error {
		return func() error {
			state, use := iounmoorplugin.State("stopped"), iounmoorplugin.Use("idle")
			w := iounmoorplugin.Report{Id: hexID, Ownership: "mine", State: &state, Use: &use}
			change(&w)
			_, err := ToClaim(w, time.Now())
			return err
		}
	}
	outcome := func(change func(*iounmoorplugin.Outcome)) func() error {
		return func() error {
			problem, message := ProblemFailed, "why"
			w := iounmoorplugin.Outcome{Id: hexID, Problem: &problem, Message: &message}
			change(&w)
			_, err := ToOutcome(w)
			return err
		}
	}
	description := func(change func(*DescribeOut)) func() error {
		return func() error {
			w := DescribeOut{Name: "crio", Engine: "CRI-O", ProtocolVersions: []int64{1}}
			change(&w)
			_, err := ToDescription(w)
			return err
		}
	}
	evidence := func(e iounmoorplugin.Evidence) func() error {
		return report(func(w *iounmoorplugin.Report) { w.Evidence = []iounmoorplugin.Evidence{e} })
	}
	text := func(s string) *string { return &s }
	for _, test := range []struct {
		name, says string // says is empty where it is right
		read       func() error
	}{
		{"a container", "", container(func(*iounmoorplugin.Container) {})},
		{"a short ID", "no ID", container(func(c *iounmoorplugin.Container) { c.Id = hexID[1:] })},
		{"an ID in capitals", "no ID", container(func(c *iounmoorplugin.Container) { c.Id = strings.ToUpper(hexID) })},
		{"an ID that leaves the directory", "no ID", container(func(c *iounmoorplugin.Container) { c.Id = "../" + hexID[3:] })},
		{"an image that is none", "no ID", container(func(c *iounmoorplugin.Container) { c.ImageId = "nginx" })},
		{"no time", "RFC 3339", container(func(c *iounmoorplugin.Container) { c.Created = "yesterday" })},
		{"a relative directory", "no absolute path", container(func(c *iounmoorplugin.Container) { c.Directory = "a/b" })},
		{"a relative layer", "no absolute path", container(func(c *iounmoorplugin.Container) { c.Layer.Directory = "a" })},
		{"metadata that is no text", "UTF-8", container(func(c *iounmoorplugin.Container) { c.Metadata = "\xff" })},
		{"a report", "", report(func(*iounmoorplugin.Report) {})},
		{"mine without a state", "state is missing", report(func(w *iounmoorplugin.Report) { w.State = nil })},
		{"mine without a use", "use is missing", report(func(w *iounmoorplugin.Report) { w.Use = nil })},
		{"not mine without either", "", report(func(w *iounmoorplugin.Report) { w.Ownership, w.State, w.Use = "not_mine", nil, nil })},
		{"a state that is not known here", "", report(func(w *iounmoorplugin.Report) { s := iounmoorplugin.State("dreaming"); w.State = &s })},
		{"an ownership that does not exist", "ownership", report(func(w *iounmoorplugin.Report) { w.Ownership = "Mine" })},
		{"no ownership", "ownership", report(func(w *iounmoorplugin.Report) { w.Ownership = "" })},
		{"a use that does not exist", "use", report(func(w *iounmoorplugin.Report) { u := iounmoorplugin.Use("free"); w.Use = &u })},
		{"a use that does not exist, of another's", "use", report(func(w *iounmoorplugin.Report) {
			u := iounmoorplugin.Use("free")
			w.Ownership, w.Use = "not_mine", &u
		})},
		{"along goes what is no ID", "no ID", report(func(w *iounmoorplugin.Report) { w.TakesAlong = &[]string{"web"} })},
		{"an image volume that is no ID", "no ID", report(func(w *iounmoorplugin.Report) { w.ImageVolumes = &[]string{""} })},
		{"evidence", "", evidence(iounmoorplugin.Evidence{Kind: "new kind", Process: &iounmoorplugin.Process{Pid: 7}, Time: text("2026-01-02T03:04:05Z")})},
		{"a process without a pid", "no process", evidence(iounmoorplugin.Evidence{Process: &iounmoorplugin.Process{}})},
		{"evidence of no time", "RFC 3339", evidence(iounmoorplugin.Evidence{Time: text("")})},
		{"an outcome", "", outcome(func(*iounmoorplugin.Outcome) {})},
		{"a problem without a message", "without a message", outcome(func(w *iounmoorplugin.Outcome) { w.Message = nil })},
		{"a problem that does not exist", "no problem", outcome(func(w *iounmoorplugin.Outcome) { p := iounmoorplugin.Problem("meh"); w.Problem = &p })},
		{"a problem, and gone", "removed", outcome(func(w *iounmoorplugin.Outcome) { yes := true; w.StorageRemoved = &yes })},
		{"along went what is no ID", "no ID", outcome(func(w *iounmoorplugin.Outcome) { w.Along = &[]string{"web"} })},
		{"a description", "", description(func(*DescribeOut) {})},
		{"no name", "no name", description(func(w *DescribeOut) { w.Name = "" })},
		{"a name that leaves the directory", "no name", description(func(w *DescribeOut) { w.Name = "../crio" })},
		{"a name like an option", "no name", description(func(w *DescribeOut) { w.Name = "-crio" })},
		{"no engine", "engine", description(func(w *DescribeOut) { w.Engine = "" })},
		{"no revision", "0 revisions", description(func(w *DescribeOut) { w.ProtocolVersions = nil })},
		{"a revision that does not exist", "revision 0", description(func(w *DescribeOut) { w.ProtocolVersions = []int64{1, 0} })},
		{"too many hints", "64 hints", description(func(w *DescribeOut) { w.ClaimHints = make([]iounmoorplugin.ClaimHint, 65) })},
		{"a hint that fits nothing", "fits nothing", description(func(w *DescribeOut) {
			w.ClaimHints = []iounmoorplugin.ClaimHint{{MetadataKeyAbsent: text("x")}}
		})},
		{"a hint that leaves the directory", "no name of a file", description(func(w *DescribeOut) {
			w.ClaimHints = []iounmoorplugin.ClaimHint{{File: text("../etc/passwd")}}
		})},
		{"a handle about two containers", "its report is about", func() error {
			r := random{rand.New(rand.NewPCG(1, 1))}
			h := r.handle()
			h.Claim.Container = core.ContainerID(r.id())
			_, err := FromHandle(h)
			return err
		}},
		{"a revision that JSON would change", "UTF-8", func() error {
			_, err := FromClaim(core.Claim{Container: hexID, Revision: "\xff"})
			return err
		}},
		{"a graph root that JSON would change", "UTF-8", func() error {
			_, err := FromStore(core.StoreInfo{GraphRoot: "/\xff", RunRoot: "/run", GraphDriver: "vfs"})
			return err
		}},
		{"no graph root", "no absolute path", func() error {
			_, err := ToStore(iounmoorplugin.Store{RunRoot: "/run", GraphDriver: "vfs"})
			return err
		}},
		{"an ownership beyond the words", "ownership", func() error {
			_, err := FromClaim(core.Claim{Container: hexID, Ownership: 7})
			return err
		}},
		{"a pin beyond the words", "does not exist", func() error {
			_, err := FromPin(core.Pin{Image: hexID, Pinned: -1})
			return err
		}},
		{"a pin that does not exist", "pin", func() error {
			_, err := ToPin(iounmoorplugin.Pin{Id: hexID, Pinned: "maybe"})
			return err
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			switch err := test.read(); {
			case test.says == "" && err != nil:
				t.Error(err)
			case test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)):
				t.Errorf("%v does not say %q", err, test.says)
			}
		})
	}
}

// TestUnknownStateIsLive: a state of a later revision counts as running.
func TestUnknownStateIsLive(t *testing.T) {
	state, use := iounmoorplugin.State("dreaming"), iounmoorplugin.Use("idle")
	c, err := ToClaim(iounmoorplugin.Report{Id: hexID, Ownership: "mine", State: &state, Use: &use}, time.Now())
	if err != nil || !c.State.Live() {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestEvidenceWithoutTime was seen when it was read.
func TestEvidenceWithoutTime(t *testing.T) {
	now := time.Now()
	c, err := ToClaim(iounmoorplugin.Report{Id: hexID, Ownership: "unknown", Evidence: []iounmoorplugin.Evidence{{Kind: "lock"}}}, now)
	if err != nil || !c.Evidence[0].Time.Equal(now) {
		t.Errorf("%+v, %v", c, err)
	}
}

type advised struct{ error }

func (advised) Advice() string { return "start it" }

// TestUnavailable: what the hooks ask of an error holds on the other side too.
func TestUnavailable(t *testing.T) {
	there := ToError(across(t, FromError(fmt.Errorf("ask it: %w", advised{errors.New("refused")}))))
	var a interface{ Advice() string }
	if there.Error() != "ask it: refused" || !errors.As(there, &a) || a.Advice() != "start it" || errors.Is(there, core.ErrEngineAbsent) {
		t.Errorf("%v, %v", there, a)
	}
	absent := ToError(across(t, FromError(fmt.Errorf("dial: %w", core.ErrEngineAbsent))))
	if a = nil; !errors.Is(absent, core.ErrEngineAbsent) || errors.As(absent, &a) {
		t.Errorf("%v, %v", absent, a)
	}
}

func TestBatches(t *testing.T) {
	r := random{rand.New(rand.NewPCG(1, 1))}
	var containers []core.Container
	for range 2*MaxBatch + 1 {
		containers = append(containers, r.container())
	}
	containers[5].ID = "custom"
	containers[6].Metadata = strings.Repeat("x", MaxBytes)
	for i := 10; i < 14; i++ {
		containers[i].Metadata = strings.Repeat("x", MaxBytes/3)
	}
	batches, refused := Batches(containers, FromContainer)
	if len(refused) != 2 || refused[5] == nil || refused[6] == nil {
		t.Errorf("refused: %v", refused)
	}
	seen := make(map[string]bool)
	for _, b := range batches {
		text, err := json.Marshal(b)
		if err != nil || len(b) > MaxBatch || len(text) > MaxBytes+2 {
			t.Errorf("a batch has %d containers and %d bytes (%v)", len(b), len(text), err)
		}
		for _, c := range b {
			seen[c.Id] = true
		}
	}
	if len(seen) != len(containers)-2 || len(batches) > 5 {
		t.Errorf("%d of %d containers in %d batches", len(seen), len(containers), len(batches))
	}
	if none, refused := Batches([]core.Image{}, FromImage); len(none)+len(refused) != 0 {
		t.Errorf("nothing makes %v, %v", none, refused)
	}
}

// TestCompaniesStayTogether: a pod whose containers are spread over a removal is one call's.
func TestCompaniesStayTogether(t *testing.T) {
	r := random{rand.New(rand.NewPCG(1, 1))}
	var handles []core.Handle
	for range 3 * MaxBatch {
		h := r.handle()
		h.Claim.TakesAlong = nil
		handles = append(handles, h)
	}
	for i := range MaxBatch {
		h := &handles[2*MaxBatch+i]
		h.Claim.TakesAlong = append(h.Claim.TakesAlong, handles[i].Container.ID, handles[MaxBatch+i].Container.ID)
	}
	batches, refused := HandleBatches(handles)
	if len(refused) != 0 {
		t.Fatal(refused)
	}
	total := 0
	for _, b := range batches {
		total += len(b)
		here := make(map[string]bool)
		for _, h := range b {
			here[h.Container.Id] = true
		}
		for _, h := range b {
			for _, id := range value(h.Report.TakesAlong) {
				if !here[id] {
					t.Fatalf("%s goes along in another call", id)
				}
			}
		}
	}
	if total != len(handles) {
		t.Errorf("%d of %d handles", total, len(handles))
	}
}

// FuzzClaim: no report makes the reader panic, and what it accepts it can send again.
func FuzzClaim(f *testing.F) {
	f.Add([]byte(`{"reports":[{"id":"` + hexID + `","ownership":"mine","state":"running","use":"in_use","evidence":[{"kind":"process","detail":"","process":{"pid":1}}]}]}`))
	f.Add([]byte(`{"reports":[{"id":null}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var out ClaimOut
		if wire.Decode(text, &out) != nil {
			return
		}
		for _, w := range out.Reports {
			c, err := ToClaim(w, time.Time{})
			if err != nil {
				continue
			}
			again, err := FromClaim(c)
			if err != nil {
				t.Fatalf("%+v was accepted, but cannot be sent: %v", w, err)
			}
			back, err := ToClaim(across(t, again), time.Time{})
			if d := cmp.Diff(c, back, sameModel()); err != nil || d != "" {
				t.Fatalf("%v\n%s", err, d)
			}
		}
	})
}

// FuzzOutcome: likewise.
func FuzzOutcome(f *testing.F) {
	f.Add([]byte(`{"outcomes":[{"id":"` + hexID + `","problem":"failed","message":"x"},{"id":"` + hexID + `","storageRemoved":true}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var out StopOut
		if wire.Decode(text, &out) != nil {
			return
		}
		for _, w := range out.Outcomes {
			o, err := ToOutcome(w)
			if err != nil {
				continue
			}
			if o.Err != nil && o.StorageRemoved {
				t.Fatalf("%+v is gone and not gone", w)
			}
			again, err := FromOutcome(o)
			if err != nil {
				t.Fatalf("%+v was accepted, but cannot be sent: %v", w, err)
			}
			back, err := ToOutcome(across(t, again))
			if d := cmp.Diff(o, back, sameModel()); err != nil || d != "" {
				t.Fatalf("%v\n%s", err, d)
			}
		}
	})
}

// FuzzDescription: likewise.
func FuzzDescription(f *testing.F) {
	f.Add([]byte(`{"name":"a","engine":"A","protocolVersions":[1],"capabilities":["stop","x"],"claimHints":[{"file":"f"}],"ready":true}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var out DescribeOut
		if wire.Decode(text, &out) != nil {
			return
		}
		d, err := ToDescription(out)
		if err != nil {
			return
		}
		again, err := FromDescription(d)
		if err != nil {
			t.Fatalf("%+v was accepted, but cannot be sent: %v", out, err)
		}
		back, err := ToDescription(across(t, again))
		if diff := cmp.Diff(d, back, sameModel()); err != nil || diff != "" {
			t.Fatalf("%v\n%s", err, diff)
		}
	})
}
