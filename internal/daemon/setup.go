package daemon

import (
	"context"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/audit"
	"github.com/unmoor/unmoor/internal/service"
)

// Service answers what is asked of the store; *service.Local is the real one. Its methods may be called
// from several goroutines at once.
type Service interface {
	Store(ctx context.Context) (core.StoreInfo, error)
	Plan(ctx context.Context, r service.Request) (*service.Outcome, error)
	Remove(ctx context.Context, r service.Request, progress func(core.Progress)) (*service.Outcome, error)
	Resolve(ctx context.Context, t service.Targets) (*service.Meaning, error)
	Containers(ctx context.Context, q service.ContainerQuery, each func(service.Container) error) error
	Images(ctx context.Context, reference string, each func(service.Image) error) error
	Explain(ctx context.Context, reference string) (*service.Explanation, error)
	Examine(ctx context.Context, r service.ExamineRequest) (*service.Examination, error)
	Build(ctx context.Context, r core.BuildRequest, output func(line string)) (*service.Built, error)
	Load(ctx context.Context, r core.LoadRequest) ([]core.LoadedImage, error)
	Import(ctx context.Context, r core.ImportRequest) (core.LoadedImage, error)
	PlanPrune(ctx context.Context, r service.PruneRequest) (*service.Pruned, error)
	Prune(ctx context.Context, r service.PruneRequest, progress func(core.Progress)) (*service.Pruned, error)
	Usage(ctx context.Context) (*service.Usage, error)
}

// Plugins are those that are asked.
type Plugins interface {
	Plugins() []service.Plugin
	Register(ctx context.Context, address string) (service.Plugin, error)
	// Unregister wraps ErrPluginUnknown where none of that name was registered.
	Unregister(name string) error
}

// Setup is all that a new configuration replaces.
type Setup struct {
	Service Service
	Plugins Plugins
	Access  *Access
	// Audit is where removals are written down; nil is nowhere.
	Audit *audit.Log
	// PruneEvery is how often the daemon prunes by itself where the store's file system is full; 0 is never.
	PruneEvery time.Duration
	// Process says what process has a pid; nil is that it cannot be told.
	Process func(pid int) (core.Process, bool)
	// Close, where it is set, is called once nobody uses the setup any more.
	Close func()

	// calls and retired are the daemon's.
	calls   int
	retired bool
}

// Replace puts a setup in the place of the one before, which ends with the last call that uses it.
func (d *Daemon) Replace(s *Setup) {
	d.mu.Lock()
	old := d.setup
	d.setup = s
	old.retired = true
	over := old.calls == 0
	close(d.replaced)
	d.replaced = make(chan struct{})
	d.mu.Unlock()
	if over {
		old.close()
	}
}

// Close closes the setup, once nothing is asked of the daemon any more.
func (d *Daemon) Close() { d.Replace(&Setup{}) }

// use is the present setup, until release.
func (d *Daemon) use() *Setup {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.setup.calls++
	return d.setup
}

// hold is one more use of a setup that is in use.
func (d *Daemon) hold(s *Setup) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s.calls++
}

func (d *Daemon) release(s *Setup) {
	d.mu.Lock()
	s.calls--
	over := s.retired && s.calls == 0
	d.mu.Unlock()
	if over {
		s.close()
	}
}

func (s *Setup) close() {
	if s.Close != nil {
		s.Close()
	}
}
