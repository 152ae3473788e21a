package hooks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/protocol"
)

// Options has useful zero values.
type Options struct {
	// Directory has a socket NAME.sock for each plugin; it need not be there yet. Empty: none is looked
	// for.
	Directory string
	// Hints is the directory where it is kept what the containers of plugins on sockets look like. Empty:
	// it is forgotten with the registry.
	Hints string
	// Changed is told of each status that is another than before, one at a time. It must not call the
	// registry.
	Changed func(PluginStatus)
	// Logger is told of plugins that are refused, and has what the commands of plugins write to standard
	// error. Nil: nothing is logged.
	Logger *slog.Logger
}

// Registry asks plugins: those of its entries, of the directory, and those that were registered. It
// implements core.Owners.
type Registry struct {
	options Options
	keeper  keeper
	log     *slog.Logger

	// mu is taken before a member's.
	mu      sync.Mutex
	entries []Entry
	// generation tells the entries from those of an earlier Configure.
	generation int
	sockets    []socket
	// kept are the records of plugins on sockets, by name. The map is never changed, but replaced.
	kept map[string]record
	// members have names of their own, and are shown in this order. The slice is never changed, but
	// replaced.
	members []*member
	refused []PluginStatus
	// animate begins the life of a member; nil unless Run runs.
	animate func(*member)
	closed  bool

	// telling is held while Options.Changed is called; it is taken before all others.
	telling sync.Mutex
	// told is what it was told last, by name.
	told map[string]PluginStatus
	// ending waits for members that are no longer there.
	ending sync.WaitGroup
}

var _ core.Owners = (*Registry)(nil)

// New makes a registry. Names of entries are unique, and shown in this order. Plugins on sockets are
// asked when there is something to ask; those of commands are started then, and ended by Close.
func New(entries []Entry, o Options) (*Registry, error) {
	r := &Registry{options: o, keeper: keeper{o.Hints}, log: o.Logger, told: make(map[string]PluginStatus)}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if r.entries, err = checkEntries(entries); err != nil {
		return nil, err
	}
	if r.kept, err = r.keeper.load(); err != nil {
		return nil, err
	}
	if o.Directory != "" {
		if r.sockets, err = scan(o.Directory); err != nil {
			return nil, err
		}
	}
	r.mu.Lock()
	finish := r.rebuild()
	r.mu.Unlock()
	finish()
	for _, m := range r.members {
		r.told[m.name] = m.status() // as it was found
	}
	return r, nil
}

// Configure replaces the entries, as an operator's word that all is well now: no plugin is left in
// quarantine. A plugin on a socket that is the same as before goes on.
func (r *Registry) Configure(entries []Entry) error {
	entries, err := checkEntries(entries)
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.entries, r.generation = entries, r.generation+1
	finish := r.rebuild()
	members := r.members
	r.mu.Unlock()
	finish()
	for _, m := range members {
		m.pardon()
	}
	return nil
}

func checkEntries(entries []Entry) ([]Entry, error) {
	var checked []Entry
	seen := make(map[string]bool)
	for _, e := range entries {
		ways := 0
		for _, has := range []bool{e.Plugin != nil, e.Address != "", len(e.Command) > 0} {
			if has {
				ways++
			}
		}
		switch err := checkName(e.Name); {
		case e.Name == "":
			return nil, errors.New("register a plugin: it has no name")
		case err != nil:
			return nil, fmt.Errorf("register a plugin: %w", err)
		case ways == 0 && !e.Disabled:
			return nil, fmt.Errorf("register plugin %s: there is none", e.Name)
		case ways > 1:
			return nil, fmt.Errorf("register plugin %s: it cannot be both in this process and elsewhere, nor in two places", e.Name)
		case seen[e.Name]:
			return nil, fmt.Errorf("register plugin %s: the name is taken", e.Name)
		case e.Required && e.WhenUnavailable == Ignore:
			return nil, fmt.Errorf("register plugin %s: it cannot be both required and ignored when unavailable", e.Name)
		}
		if e.Address != "" {
			if _, err := socketPath(e.Address); err != nil {
				return nil, fmt.Errorf("register plugin %s: %w", e.Name, err)
			}
		}
		seen[e.Name] = true
		e.source = SourceConfigured
		if e.Plugin != nil {
			e.source = SourceBuiltin
		}
		checked = append(checked, e.withDefaults())
	}
	return checked, nil
}

// Names lists the plugins that are asked, in order.
func (r *Registry) Names() []string {
	var names []string
	for _, m := range r.asked() {
		names = append(names, m.name)
	}
	return names
}

// Describe asks every plugin who it is, all side by side, and returns what Status does then.
func (r *Registry) Describe(ctx context.Context) []PluginStatus {
	var wg sync.WaitGroup
	for _, m := range r.asked() {
		wg.Go(func() { m.describe(ctx) })
	}
	wg.Wait()
	return r.Status()
}

// asked are the members that are asked, as they are now.
func (r *Registry) asked() []*member {
	r.look()
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []*member
	for _, m := range r.members {
		if m.plugin != nil {
			all = append(all, m)
		}
	}
	return all
}

// member finds one that is asked.
func (r *Registry) member(name string) (*member, bool) {
	for _, m := range r.asked() {
		if m.name == name {
			return m, true
		}
	}
	return nil, false
}

// ErrPluginUnknown: there is no plugin of that name.
var ErrPluginUnknown = errors.New("no such plugin")

// Register adds the plugin that serves a socket, unix:/path, under the name by which it describes itself.
// It stays until it is unregistered; with Options.Hints, beyond this process. The quarantine of one that
// is known already ends.
func (r *Registry) Register(ctx context.Context, address string) (PluginStatus, error) {
	m, d, err := r.register(ctx, address)
	if err != nil {
		return PluginStatus{}, fmt.Errorf("register the plugin at %s: %w", address, err)
	}
	m.learn(d)
	m.pardon()
	r.mu.Lock()
	lost := r.keeper.directory != "" && !r.kept[m.name].saved
	r.mu.Unlock()
	if lost {
		return m.status(), fmt.Errorf("register the plugin at %s: it is known until this process ends, but what it said cannot be kept in %s", address, r.keeper.directory)
	}
	return m.status(), nil
}

func (r *Registry) register(ctx context.Context, address string) (*member, protocol.Description, error) {
	if err := trust(address); err != nil {
		return nil, protocol.Description{}, err
	}
	stranger := &remote{dial: dialTrusted(address)}
	d, f := call(ctx, DefaultClaimTimeout, stranger.meet)
	if f != nil {
		return nil, d, errors.New("it " + f.clause())
	}
	if err := checkName(d.Name); err != nil {
		return nil, d, err
	}
	r.look()
	r.mu.Lock()
	finish := func() {}
	m := r.named(d.Name)
	switch {
	case m != nil && !m.settings().kept && m.settings().Address != address:
		r.mu.Unlock()
		return nil, d, fmt.Errorf("the name %s is taken: %s", d.Name, takenBy(m.settings()))
	case m == nil || m.settings().kept:
		r.keep(record{Source: SourceRegistered, Address: address, Description: d})
		finish = r.rebuild()
		m = r.named(d.Name)
	}
	r.mu.Unlock()
	finish()
	return m, d, nil
}

// Unregister forgets a plugin that was registered, or whose socket has left the directory, or whose
// section has left the configuration, and what its containers look like: an operator's word that it is
// gone for good. ErrPluginUnknown where there is none.
func (r *Registry) Unregister(name string) error {
	r.look()
	r.mu.Lock()
	finish, err := r.unregister(name)
	r.mu.Unlock()
	if err != nil {
		return fmt.Errorf("unregister plugin %s: %w", name, err)
	}
	finish()
	return nil
}

func (r *Registry) unregister(name string) (finish func(), err error) {
	m := r.named(name)
	switch {
	case m == nil:
		return nil, ErrPluginUnknown
	case !m.settings().kept:
		return nil, errors.New(takenBy(m.settings()))
	}
	if err := r.keeper.drop(name); err != nil {
		return nil, err
	}
	r.forget(name)
	return r.rebuild(), nil
}

// takenBy says where a plugin comes from that is not to be touched.
func takenBy(e Entry) string {
	switch {
	case e.Disabled:
		return "config.toml has turned that plugin off"
	case e.source == SourceBuiltin:
		return "that plugin is built in"
	case e.source == SourceConfigured:
		return fmt.Sprintf("config.toml has a section [plugin.%s]", e.Name)
	case e.source == SourceDirectory:
		return "its socket " + e.Address + " is there"
	}
	return "it is registered at " + e.Address
}

// named finds a member, also one that is not asked; r.mu is held.
func (r *Registry) named(name string) *member {
	for _, m := range r.members {
		if m.name == name {
			return m
		}
	}
	return nil
}

// Close ends the commands of plugins and waits for them. It is called when Run and all else has returned;
// those plugins cannot be reached any more then.
func (r *Registry) Close() {
	r.mu.Lock()
	members := r.members
	r.closed = true
	r.mu.Unlock()
	for _, m := range members {
		r.ending.Go(m.end)
	}
	r.ending.Wait()
}
