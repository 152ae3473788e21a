package hooks

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"github.com/unmoor/unmoor/internal/wire"
)

// candidate is a plugin that will be a member, unless its name is taken.
type candidate struct {
	entry Entry
	// record is what it said of itself; nil where nothing is known.
	record *record
	// gone is why it is not even looked for; empty where it is.
	gone string
	// generation tells plugins of this process from those of other entries.
	generation int
}

// candidates are all plugins there are, those first that come before others of their name; r.mu is held.
func (r *Registry) candidates() []candidate {
	var all []candidate
	recorded := func(name string) *record {
		if rec, ok := r.kept[name]; ok && rec.unreadable == nil {
			return &rec
		}
		return nil
	}
	for _, e := range r.entries {
		c := candidate{entry: e}
		if e.Plugin != nil {
			c.generation = r.generation
		} else if !e.Disabled {
			c.record = recorded(e.Name)
			if r.kept[e.Name].unreadable != nil {
				c.entry.Hints = nil // it may have told of more, so until it describes itself it may own more
			}
		}
		all = append(all, c)
	}
	for _, s := range r.sockets {
		if s.problem == "" {
			e := Entry{Name: s.name, Address: s.address, source: SourceDirectory}
			all = append(all, candidate{entry: e.withDefaults(), record: recorded(s.name)})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.kept)) {
		rec := r.kept[name]
		e := Entry{Name: name, Address: rec.Address, source: rec.Source, kept: true}
		c := candidate{entry: e.withDefaults(), record: recorded(name)}
		switch {
		case rec.unreadable != nil:
			c.gone = "what is kept of it says no more: " + rec.unreadable.Error()
		case rec.Source == SourceConfigured:
			c.gone = fmt.Sprintf("config.toml has no section [plugin.%s] any more", name)
		case rec.Source == SourceDirectory && rec.Address != "unix:"+filepath.Join(r.options.Directory, name+".sock"):
			c.gone = "its socket is not in the directory of plugins any more"
		}
		all = append(all, c)
	}
	return all
}

// look sees to it that the members are those of this moment.
func (r *Registry) look() {
	r.mu.Lock()
	var reborn []*member
	changed := false
	if r.options.Directory != "" && !r.closed {
		sockets, err := scan(r.options.Directory)
		if err != nil {
			r.log.Warn("plugins that come or go are not seen", "error", err)
		} else if !slices.Equal(sockets, r.sockets) {
			for _, s := range sockets {
				if m := r.named(s.name); m != nil && !slices.Contains(r.sockets, s) {
					reborn = append(reborn, m)
				}
			}
			r.sockets, changed = sockets, true
		}
	}
	for _, m := range r.members {
		if m.settings().kept && r.keeper.dropped(m.name, r.kept[m.name]) {
			r.forget(m.name)
			changed = true
		}
	}
	finish := func() {}
	if changed {
		finish = r.rebuild()
	}
	r.mu.Unlock()
	finish()
	for _, m := range reborn {
		if m.remote != nil {
			m.remote.forget() // another one may be behind the name now
		}
		m.life.nudge()
	}
}

// rebuild makes the members of the candidates; r.mu is held. Those that are the same as before go on.
// finish does what is to be done without r.mu.
func (r *Registry) rebuild() (finish func()) {
	before, refusedBefore := r.members, r.refused
	r.members, r.refused = nil, nil
	for _, c := range r.candidates() {
		if taken := r.named(c.entry.Name); taken != nil {
			if e := taken.settings(); !c.entry.kept && !e.Disabled && e.Address != c.entry.Address {
				r.refuse(c.entry, "the name is taken: "+takenBy(e), makeRoom(e, c.entry))
			}
			continue
		}
		m := r.admit(c)
		if i := slices.IndexFunc(before, func(old *member) bool { return old.is(c) }); i >= 0 {
			m = before[i]
			m.adopt(c)
		}
		r.members = append(r.members, m)
	}
	for _, s := range r.sockets {
		// Where something is known of it, it is a member that cannot be reached.
		if m := r.named(s.name); s.problem != "" && (m == nil || m.settings().Address != s.address) {
			r.refuse(Entry{Name: s.name, Address: s.address, source: SourceDirectory}, s.problem,
				"see to it that it belongs to root and that nobody else can write there")
		}
	}
	members, refused, animate := r.members, r.refused, r.animate
	return func() {
		for _, m := range before {
			if !slices.Contains(members, m) {
				r.ending.Go(m.end)
				r.tellGone(m)
			}
		}
		for _, m := range members {
			if animate != nil {
				animate(m)
			}
			r.tell(m)
		}
		for _, s := range refused {
			if !slices.ContainsFunc(refusedBefore, s.same) {
				r.log.Warn("a plugin is refused", "plugin", s.Name, "address", s.Address, "reason", s.LastError)
				r.tellRefused(s)
			}
		}
	}
}

func (r *Registry) refuse(e Entry, reason, advice string) {
	r.refused = append(r.refused, PluginStatus{Name: e.Name, Address: e.Address, Source: e.source, State: StateRefused,
		LastError: reason, Advice: advice})
}

// makeRoom says how a plugin gets a name that another one has.
func makeRoom(taken, e Entry) string {
	if taken.source == SourceBuiltin {
		return fmt.Sprintf("set [plugin.%s] socket = %q in config.toml to use it in place of the one that is built in", e.Name, e.Address)
	}
	return "leave one of the two"
}

// admit makes a member.
func (r *Registry) admit(c candidate) *member {
	m := &member{registry: r, name: c.entry.Name, generation: c.generation, gone: c.gone, life: newLife()}
	switch e := c.entry; {
	case e.Disabled:
	case e.Plugin != nil:
		m.plugin = e.Plugin
	default:
		m.remote = &remote{name: e.Name, learn: m.learn, dial: r.dialer(m, c)}
		if m.child != nil {
			m.remote.explain = m.child.explain
		}
		m.plugin = m.remote
		m.fault = &fault{faultUnreachable, errNotAsked}
		if c.gone != "" {
			m.fault = &fault{faultUnreachable, errors.New(c.gone)}
		}
	}
	m.adopt(c)
	return m
}

// errNotAsked is why nothing can be said of a new member.
var errNotAsked = errors.New("it was not asked yet")

func (r *Registry) dialer(m *member, c candidate) dialer {
	switch {
	case c.gone != "":
		return func(context.Context, wire.DialOptions) (*wire.Conn, error) { return nil, errors.New(c.gone) }
	case len(c.entry.Command) > 0:
		m.child = &child{name: m.name, command: c.entry.Command, log: r.log}
		return m.child.dial
	case c.entry.source == SourceConfigured:
		return func(ctx context.Context, o wire.DialOptions) (*wire.Conn, error) {
			return wire.Dial(ctx, c.entry.Address, o)
		}
	}
	return dialTrusted(c.entry.Address)
}

type dialer func(ctx context.Context, o wire.DialOptions) (*wire.Conn, error)

// dialTrusted looks each time at what lies at the address.
func dialTrusted(address string) dialer {
	return func(ctx context.Context, o wire.DialOptions) (*wire.Conn, error) {
		if err := trust(address); err != nil {
			return nil, err
		}
		return wire.Dial(ctx, address, o)
	}
}

// is whether a member and a candidate are the same plugin.
func (m *member) is(c candidate) bool {
	e := m.settings()
	return e.Name == c.entry.Name && e.source == c.entry.source && e.Address == c.entry.Address &&
		slices.Equal(e.Command, c.entry.Command) && e.Disabled == c.entry.Disabled && m.gone == c.gone && m.generation == c.generation
}

// adopt takes over what is new about a member.
func (m *member) adopt(c candidate) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.entry = c.entry
	if m.record == nil {
		m.record = c.record
	}
}

// end ends a member's life and process.
func (m *member) end() {
	m.life.end()
	m.mu.Lock()
	if m.wake != nil {
		m.wake.Stop()
	}
	m.mu.Unlock()
	if m.child != nil {
		m.child.end(m.remote.working.Load())
	}
}
