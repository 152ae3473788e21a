package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/audit"
	"github.com/unmoor/unmoor/internal/service"
	"github.com/unmoor/unmoor/internal/wire"
)

// fakeService is a double of service.Local: a store of images and containers in memory, in which a
// removal stops where a test wants it to.
type fakeService struct {
	mu         sync.Mutex
	images     []service.Image
	containers []service.Container

	// The functions, where set, are called in place of what is below.
	plan    func(ctx context.Context, r service.Request) (*service.Outcome, error)
	remove  func(ctx context.Context, r service.Request, progress func(core.Progress)) (*service.Outcome, error)
	examine func(ctx context.Context, r service.ExamineRequest) (*service.Examination, error)
	build   func(ctx context.Context, r core.BuildRequest, output func(string)) (*service.Built, error)
	load    func(ctx context.Context, r core.LoadRequest) ([]core.LoadedImage, error)
	// looking is called where the store is looked at.
	looking func(ctx context.Context) error
	// wanted is how many bytes a prune of what is full wants, prunes how many were carried out.
	wanted int64
	prunes int
	// err is the store's error.
	err error
}

func id(n int) string { return fmt.Sprintf("%064x", n) }

// newFakeService has the images web (1) and db (2), and n containers of web, the first of which is named
// c10.
func newFakeService(n int) *fakeService {
	f := &fakeService{images: []service.Image{
		{ID: core.ImageID(id(1)), Names: []string{"localhost/web:1"}, Digests: []string{}, Created: time.Unix(1, 0), Size: 100, UniqueSize: -1},
		{ID: core.ImageID(id(2)), Names: []string{"localhost/db:1"}, Digests: []string{}, Created: time.Unix(2, 0)},
	}}
	for i := range n {
		f.containers = append(f.containers, service.Container{ID: core.ContainerID(id(10 + i)), Names: []string{fmt.Sprint("c", 10+i)},
			ImageID: core.ImageID(id(1)), Image: "localhost/web:1", LayerID: core.LayerID(id(1000 + i)), Created: time.Unix(3, 0),
			Holding: core.Unowned, Owners: []string{}, Use: core.UseIdle, Reason: "nothing uses it",
			Evidence: []core.Evidence{{Source: core.SourceKernel, Kind: core.EvidenceMount, Detail: "it is mounted", Path: "/var/lib/containers/storage/overlay/" + id(1000+i) + "/merged", Time: time.Unix(4, 0)}}})
	}
	return f
}

func (f *fakeService) Store(context.Context) (core.StoreInfo, error) {
	return core.StoreInfo{GraphRoot: "/graph", RunRoot: "/run", GraphDriver: "overlay"}, f.err
}

func (f *fakeService) look(ctx context.Context) error {
	if f.looking != nil {
		if err := f.looking(ctx); err != nil {
			return err
		}
	}
	return f.err
}

func (f *fakeService) image(reference string) (int, error) {
	if reference == "ambiguous" {
		return 0, &core.AmbiguousError{Reference: reference, Candidates: []string{id(1), id(2)}}
	}
	for i, image := range f.images {
		if string(image.ID) == reference || slices.Contains(image.Names, reference) {
			return i, nil
		}
	}
	return 0, fmt.Errorf("%s: %w", reference, core.ErrImageUnknown)
}

func (f *fakeService) container(reference string) (int, error) {
	for i, c := range f.containers {
		if string(c.ID) == reference || slices.Contains(c.Names, reference) {
			return i, nil
		}
	}
	return 0, fmt.Errorf("%s: %w", reference, core.ErrContainerUnknown)
}

func (f *fakeService) Resolve(_ context.Context, t service.Targets) (*service.Meaning, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := &service.Meaning{}
	for _, reference := range t.Images {
		i, err := f.image(reference)
		if err != nil {
			m.Refusals = append(m.Refusals, service.Refusal{Reference: reference, Err: err})
			continue
		}
		m.Targets = append(m.Targets, string(f.images[i].ID))
		for _, c := range f.containers {
			if c.ImageID == f.images[i].ID {
				m.Along = append(m.Along, string(c.ID))
			}
		}
	}
	for _, reference := range t.Containers {
		i, err := f.container(reference)
		if err != nil {
			m.Refusals = append(m.Refusals, service.Refusal{Reference: reference, Err: err})
			continue
		}
		m.Targets = append(m.Targets, string(f.containers[i].ID))
	}
	return m, f.err
}

func (f *fakeService) Plan(ctx context.Context, r service.Request) (*service.Outcome, error) {
	if err := f.look(ctx); err != nil {
		return nil, err
	}
	if f.plan != nil {
		return f.plan(ctx, r)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.decide(r), nil
}

func (f *fakeService) decide(r service.Request) *service.Outcome {
	out := &service.Outcome{Plan: &core.Plan{Revision: id(99), Force: r.Force, Removals: []core.Removal{}}}
	add := func(reference, name string, removal core.Removal) {
		removal.Reference = reference
		out.Plan.Removals = append(out.Plan.Removals, removal)
		out.References, out.Names = append(out.References, reference), append(out.Names, name)
	}
	for _, reference := range r.Targets.Images {
		i, err := f.image(reference)
		if err != nil {
			out.Refusals = append(out.Refusals, service.Refusal{Reference: reference, Err: err})
			continue
		}
		image := f.images[i]
		removal := core.Removal{Image: image.ID}
		for _, c := range f.containers {
			switch {
			case c.ImageID != image.ID:
			case r.Force < core.ForceIdle:
				removal.Blockers = append(removal.Blockers, core.Blocker{Reason: core.ReasonHasContainer, Container: c.ID, Name: c.Names[0], LiftedBy: core.ForceIdle})
			default:
				removal.Actions = append(removal.Actions, core.Action{Verb: core.VerbDeleteContainer, Container: c.ID, Name: c.Names[0]})
			}
		}
		for _, name := range image.Names {
			removal.Actions = append(removal.Actions, core.Action{Verb: core.VerbUntag, Image: image.ID, Name: name})
		}
		removal.Actions = append(removal.Actions, core.Action{Verb: core.VerbDeleteImage, Image: image.ID, Name: image.Names[0], Bytes: 100})
		if removal.Blocked() {
			removal.Actions = nil
		}
		add(reference, image.Names[0], removal)
	}
	for _, reference := range r.Targets.Containers {
		i, err := f.container(reference)
		if err != nil {
			out.Refusals = append(out.Refusals, service.Refusal{Reference: reference, Err: err})
			continue
		}
		c := f.containers[i]
		add(reference, c.Names[0], core.Removal{Container: c.ID, Actions: []core.Action{
			{Verb: core.VerbStop, Container: c.ID, Name: c.Names[0], Owner: "podman"},
			{Verb: core.VerbRemove, Container: c.ID, Name: c.Names[0], Owner: "podman", Bytes: 7}}})
	}
	return out
}

func (f *fakeService) Remove(ctx context.Context, r service.Request, progress func(core.Progress)) (*service.Outcome, error) {
	if f.remove != nil {
		return f.remove(ctx, r, progress)
	}
	return f.carryOut(ctx, r, progress, nil)
}

// carryOut removes, and calls before each action; where ctx has ended it ends as core.Engine does.
func (f *fakeService) carryOut(ctx context.Context, r service.Request, progress func(core.Progress), before func(core.Action)) (*service.Outcome, error) {
	if f.err != nil {
		return nil, f.err
	}
	f.mu.Lock()
	out := f.decide(r)
	f.mu.Unlock()
	if r.Revision != "" && r.Revision != out.Plan.Revision {
		return nil, &core.StaleError{Wanted: r.Revision, Now: out.Plan.Revision}
	}
	for _, removal := range out.Plan.Removals {
		result := core.Result{Removal: removal, Blockers: removal.Blockers}
		for _, a := range removal.Actions {
			progress(core.Progress{Phase: core.PhaseStarted, Action: a})
			if before != nil {
				before(a)
			}
			if err := ctx.Err(); err != nil {
				result.Failed = append(result.Failed, core.Failure{Action: a, Err: err})
				progress(core.Progress{Phase: core.PhaseFailed, Action: a, Err: err})
				break
			}
			f.done(a)
			result.Done = append(result.Done, a)
			result.Bytes += a.Bytes
			progress(core.Progress{Phase: core.PhaseFinished, Action: a})
		}
		out.Results = append(out.Results, result)
	}
	return out, nil
}

func (f *fakeService) done(a core.Action) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch a.Verb {
	case core.VerbDeleteImage:
		f.images = slices.DeleteFunc(f.images, func(i service.Image) bool { return i.ID == a.Image })
	case core.VerbDeleteContainer, core.VerbRemove:
		f.containers = slices.DeleteFunc(f.containers, func(c service.Container) bool { return c.ID == a.Container })
	case core.VerbStop, core.VerbKill, core.VerbUnmount, core.VerbUntag:
	}
}

func (f *fakeService) Containers(ctx context.Context, q service.ContainerQuery, each func(service.Container) error) error {
	if err := f.look(ctx); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if q.Image != "" {
		if _, err := f.image(q.Image); err != nil {
			return err
		}
	}
	if q.Container != "" {
		i, err := f.container(q.Container)
		if err != nil {
			return err
		}
		return each(f.containers[i])
	}
	for _, c := range f.containers {
		if err := each(c); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeService) Images(ctx context.Context, reference string, each func(service.Image) error) error {
	if err := f.look(ctx); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if reference != "" {
		i, err := f.image(reference)
		if err != nil {
			return err
		}
		return each(f.images[i])
	}
	for _, i := range f.images {
		if err := each(i); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeService) Explain(ctx context.Context, reference string) (*service.Explanation, error) {
	if err := f.look(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	i, err := f.image(reference)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", reference, core.ErrContainerUnknown)
	}
	return &service.Explanation{Image: f.images[i].ID, Name: f.images[i].Names[0], Names: f.images[i].Names, LeastForce: core.ForceIdle, Lifted: true,
		Holders: f.containers}, nil
}

// PlanPrune takes images without containers; of what is full so many as are wanted.
func (f *fakeService) PlanPrune(ctx context.Context, r service.PruneRequest) (*service.Pruned, error) {
	if err := f.look(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	request := service.Request{Force: core.ForceIdle}
	for _, i := range f.images {
		if !slices.ContainsFunc(f.containers, func(c service.Container) bool { return c.ImageID == i.ID }) && (!r.WhenFull || f.wanted > 0) {
			request.Targets.Images = append(request.Targets.Images, string(i.ID))
		}
	}
	p := &service.Pruned{Outcome: f.decide(request), Kept: []core.Blocker{{Reason: core.ReasonProtected, Image: core.ImageID(id(1))}},
		Disk: &core.Disk{Capacity: 100, Available: 10}, Bytes: 100}
	if r.WhenFull {
		p.Wanted, p.Thresholds = f.wanted, core.Thresholds{High: 85, Low: 80}
	}
	if r.Revision != "" && r.Revision != p.Plan.Revision {
		return nil, &core.StaleError{Wanted: r.Revision, Now: p.Plan.Revision}
	}
	return p, nil
}

func (f *fakeService) Prune(ctx context.Context, r service.PruneRequest, progress func(core.Progress)) (*service.Pruned, error) {
	p, err := f.PlanPrune(ctx, r)
	if err != nil {
		return nil, err
	}
	request := service.Request{Force: core.ForceIdle, Targets: service.Targets{Images: p.References}}
	if p.Outcome, err = f.carryOut(ctx, request, progress, nil); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.prunes, f.wanted = f.prunes+1, 0
	p.After = &core.Disk{Capacity: 100, Available: 30}
	return p, nil
}

func (f *fakeService) Usage(ctx context.Context) (*service.Usage, error) {
	if err := f.look(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	u := &service.Usage{Time: time.Unix(5, 0), Disk: &core.Disk{Capacity: 100, Available: 10}, Account: &core.Account{Store: core.StoreInfo{GraphRoot: "/graph"}}}
	for _, i := range f.images {
		u.Account.Images = append(u.Account.Images, core.ImageAccount{ID: i.ID, Names: i.Names, UniqueBytes: 100})
		u.Account.Layers = append(u.Account.Layers, core.LayerAccount{ID: core.LayerID(i.ID), Bytes: 100, Images: []core.ImageID{i.ID}})
	}
	for _, c := range f.containers {
		u.Account.Containers = append(u.Account.Containers, core.ContainerAccount{ID: c.ID, Bytes: -1})
	}
	return u, nil
}

func (f *fakeService) Examine(ctx context.Context, r service.ExamineRequest) (*service.Examination, error) {
	if err := f.look(ctx); err != nil {
		return nil, err
	}
	if f.examine != nil {
		return f.examine(ctx, r)
	}
	return &service.Examination{Findings: []service.Finding{{Finding: core.Finding{Damage: core.DamageStrayMount, Path: "/x", Detail: "it is there", Dead: true}, Repaired: r.Repair}},
		UnknownNames: r.Names}, nil
}

func (f *fakeService) Build(ctx context.Context, r core.BuildRequest, output func(string)) (*service.Built, error) {
	if f.build == nil {
		return &service.Built{Image: core.ImageID(id(7)), Names: r.Names}, nil
	}
	return f.build(ctx, r, output)
}

// onLoad is what Load does from now on.
func (f *fakeService) onLoad(load func(context.Context, core.LoadRequest) ([]core.LoadedImage, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.load = load
}

// Load reads what it is given, and makes an image of the name that this is.
func (f *fakeService) Load(ctx context.Context, r core.LoadRequest) ([]core.LoadedImage, error) {
	f.mu.Lock()
	load := f.load
	f.mu.Unlock()
	if load != nil {
		return load(ctx, r)
	}
	text, err := readSource(r.Source)
	if err != nil {
		return nil, err
	}
	r.Copy.Progress(core.CopyProgress{Digest: "sha256:1", Copied: 3, Size: -1, Done: true})
	return []core.LoadedImage{{ID: core.ImageID(id(7)), Names: []string{text, r.Name}}}, nil
}

func (f *fakeService) Import(_ context.Context, r core.ImportRequest) (core.LoadedImage, error) {
	text, err := readSource(r.Source)
	r.Copy.Progress(core.CopyProgress{Digest: "sha256:1", Copied: 3, Size: 4})
	return core.LoadedImage{ID: core.ImageID(id(8)), Names: append([]string{text, r.Name, r.Message, r.OS, r.Architecture, r.Variant}, r.Changes...)}, err
}

// readSource is "file CONTENT", "stream CONTENT" or "directory".
func readSource(s core.ImageSource) (string, error) {
	if s.Path == "" {
		data, err := io.ReadAll(io.LimitReader(s.Stream, 1<<10))
		return "stream " + string(data), err
	}
	info, err := os.Stat(s.Path)
	if err != nil {
		return "", err
	}
	if info.IsDir() {
		return "directory", nil
	}
	data, err := os.ReadFile(s.Path)
	return "file " + string(data), err
}

// fakePlugins is a double of the plugins.
type fakePlugins struct {
	mu  sync.Mutex
	all []service.Plugin
}

func (f *fakePlugins) Plugins() []service.Plugin {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.all)
}

func (f *fakePlugins) Register(_ context.Context, address string) (service.Plugin, error) {
	name, ok := strings.CutPrefix(address, "unix:/run/")
	if !ok {
		return service.Plugin{}, errors.New("it is no socket")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	p := service.Plugin{Name: name, Address: address, Source: "registered", WhenUnavailable: "block", Status: "ready"}
	f.all = append(f.all, p)
	return p, nil
}

func (f *fakePlugins) Unregister(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(f.all)
	f.all = slices.DeleteFunc(f.all, func(p service.Plugin) bool { return p.Name == name })
	if len(f.all) == n {
		return fmt.Errorf("%s: %w", name, ErrPluginUnknown)
	}
	return nil
}

// scene is a daemon on a socket.
type scene struct {
	*testing.T
	daemon *Daemon
	setup  *Setup
	path   string
	// audit is the path of the log.
	audit string
	stop  context.CancelFunc
	ended chan struct{}
}

func serve(t *testing.T, s Service, o Options) *scene {
	t.Helper()
	access, err := NewAccess(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	sc := &scene{T: t, path: filepath.Join(dir, "socket"), audit: filepath.Join(dir, "audit.log"), ended: make(chan struct{})}
	log, err := audit.Open(audit.Options{Path: sc.audit, MaxSize: 1 << 20, Keep: 1})
	if err != nil {
		t.Fatal(err)
	}
	sc.setup = &Setup{Service: s, Plugins: &fakePlugins{}, Access: access, Audit: log, Close: func() { log.Close() }}
	o.Logger = slog.New(slog.DiscardHandler)
	sc.daemon = New(sc.setup, o)
	server, err := wire.NewServer(wire.ServerOptions{Product: "Unmoor", Logger: o.Logger, TakesFiles: TakesFiles}, sc.daemon.Interface())
	if err != nil {
		t.Fatal(err)
	}
	l, err := wire.Listen(sc.path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, sc.stop = context.WithCancel(context.Background())
	go func() {
		defer close(sc.ended)
		if err := server.Serve(ctx, l); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		sc.stop()
		<-sc.ended
	})
	return sc
}

func (s *scene) dial() *wire.Conn {
	s.Helper()
	c, err := wire.Dial(s.Context(), "unix:"+s.path, wire.DialOptions{})
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { c.Close() })
	return c
}

// rawDial is a connection on which a test reads when it likes.
func (s *scene) rawDial() net.Conn {
	s.Helper()
	c, err := net.Dial("unix", s.path)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { c.Close() })
	return c
}

const methodPrefix = "io.unmoor.Removal."

type object = map[string]any

// call makes a call and returns what it answers, or the name of the error and its parameters.
func (s *scene) call(method string, in any) (out object, failed string) {
	s.Helper()
	return callOn(s, s.dial(), method, in)
}

func callOn(s *scene, c *wire.Conn, method string, in any) (out object, failed string) {
	s.Helper()
	if in == nil {
		in = object{}
	}
	if err := c.Call(s.Context(), methodPrefix+method, in, &out); err != nil {
		return s.answer(err)
	}
	return out, ""
}

// answer is the name and the parameters of an error reply; any other error is not to be.
func (s *scene) answer(err error) (parameters object, failed string) {
	s.Helper()
	var reply *wire.Error
	if !errors.As(err, &reply) {
		s.Error(err)
		return object{}, fmt.Sprint(err)
	}
	if len(reply.Parameters) > 0 {
		if err := json.Unmarshal(reply.Parameters, &parameters); err != nil {
			s.Error(err)
		}
	}
	return parameters, strings.TrimPrefix(reply.Name, methodPrefix)
}

// all makes a call with more and returns all answers.
func (s *scene) all(method string, in any) (answers []object, failed string, parameters object) {
	s.Helper()
	if in == nil {
		in = object{}
	}
	err := s.dial().Stream(s.Context(), methodPrefix+method, in, func(p json.RawMessage, _ bool) error {
		var o object
		err := json.Unmarshal(p, &o)
		answers = append(answers, o)
		return err
	})
	if err != nil {
		parameters, failed = s.answer(err)
	}
	return answers, failed, parameters
}

// records are what is in the audit log.
func (s *scene) records() []record {
	s.Helper()
	b, err := os.ReadFile(s.audit)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.Fatal(err)
	}
	var all []record
	for line := range strings.Lines(string(b)) {
		var r record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			s.Fatalf("%q: %v", line, err)
		}
		all = append(all, r)
	}
	return all
}

// eventually waits for a condition.
func (s *scene) eventually(what string, is func() bool) {
	s.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); {
		if time.Now().After(end) {
			s.Fatalf("not after 10 s: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func words(all []record) string {
	var w []string
	for _, r := range all {
		w = append(w, r.Event+" "+r.Method)
	}
	return strings.Join(w, ", ")
}
