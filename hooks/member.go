package hooks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/unmoor/unmoor/internal/protocol"
)

// member is a plugin in the registry, with what is known of it.
type member struct {
	registry *Registry
	name     string
	// plugin is what is asked; nil where it is disabled. Where it is on a socket it is remote.
	plugin Plugin
	remote *remote
	// child is the process that serves it; nil unless we start it.
	child *child
	life  *life
	// gone is why it is not even looked for; empty where it is.
	gone string
	// generation tells a plugin of this process from those of other entries.
	generation int

	mu    sync.Mutex
	entry Entry
	// record is what it said of itself, now or in another life; nil where nothing is known.
	record     *record
	version    string
	fault      *fault // of the last answer; nil where that was right
	seen       time.Time
	quarantine quarantine
	// wake ends the quarantine for those who watch.
	wake *time.Timer
}

// settings are the entry as it is now, with the hints that the plugin told of. One that told of none may
// own anything.
func (m *member) settings() Entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entry
	switch {
	case m.record == nil:
	case len(m.record.Description.Hints) == 0:
		e.Hints = nil
	default:
		e.Hints = slices.Concat(e.Hints, m.record.Description.Hints)
	}
	return e
}

// engine is what its users call the engine.
func (m *member) engine() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.record != nil {
		return m.record.Description.Engine
	}
	return m.name
}

// offers is false where it is known that the plugin lacks a capability.
func (m *member) offers(capability string) bool {
	if m.remote == nil {
		return slices.Contains(capabilitiesOf(m.plugin), capability)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.record == nil || slices.Contains(m.record.Description.Capabilities.Words(), capability)
}

func capabilitiesOf(p Plugin) []string {
	_, pins := p.(Pinner)
	_, lists := p.(Lister)
	_, builds := p.(Builder)
	c := protocol.Capabilities{Stop: true, Remove: true, Pin: pins, List: lists, Build: builds}
	return c.Words()
}

// unasked is whether nothing can be said of it yet.
func (m *member) unasked() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fault != nil && errors.Is(m.fault.err, errNotAsked)
}

// try calls a plugin unless it is in quarantine, has its answer checked, and notes how that went.
func try[T any](ctx context.Context, m *member, timeout time.Duration, ask func(context.Context) (T, error), check func(T) error) (T, *fault) {
	var none T
	if f := m.shut(); f != nil {
		return none, f
	}
	answer, f := call(ctx, timeout, ask)
	if f == nil {
		if err := check(answer); err != nil {
			f = &fault{faultGarbage, err}
			if m.remote != nil {
				m.remote.forget()
			}
		}
	}
	m.note(f)
	return answer, f
}

// shut is the reason not to ask, nil where there is none.
func (m *member) shut() *fault {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.quarantine.holds(time.Now()) {
		return m.quarantine.fault(m.name)
	}
	return nil
}

// note keeps how an answer was: nil is right, and so is that the engine cannot answer.
func (m *member) note(f *fault) {
	if f != nil && (f.kind == faultCanceled || f.kind == faultQuarantined || errors.Is(f.err, errNotOffered)) {
		return
	}
	m.mu.Lock()
	now := time.Now()
	m.fault = f
	switch {
	case f == nil || f.kind == faultError:
		m.seen = now
		m.release()
	case f.kind == faultSilent || f.kind == faultBroken || f.kind == faultGarbage:
		if m.quarantine.fail(now, f) {
			m.wake = time.AfterFunc(m.quarantine.until.Sub(now), func() { m.registry.tell(m) })
		}
	}
	m.mu.Unlock()
	m.registry.tell(m)
}

// release ends a quarantine; m.mu is held.
func (m *member) release() {
	if m.wake != nil {
		m.wake.Stop()
	}
	m.quarantine = quarantine{}
}

// pardon is an operator's word that the plugin was mended.
func (m *member) pardon() {
	m.mu.Lock()
	m.release()
	m.mu.Unlock()
	m.life.nudge()
	m.registry.tell(m)
}

// learn keeps the description of a plugin on a socket.
func (m *member) learn(d protocol.Description) {
	ready := d.Ready
	d.Ready = false // that passes, and is not kept
	m.mu.Lock()
	rec := record{Source: m.entry.source, Address: m.entry.Address, Description: d}
	m.record = &rec
	m.mu.Unlock()
	m.registry.remember(m, rec)
	m.introduced(d.EngineVersion, ready)
}

// introduced notes that a plugin has described itself. What its other answers are worth is not known by
// that.
func (m *member) introduced(version string, ready bool) {
	m.mu.Lock()
	m.seen, m.version = time.Now(), version
	switch {
	case !ready:
		m.fault = &fault{faultError, errors.New("its engine does not answer")}
	case m.fault != nil && (m.fault.kind == faultSilent || m.fault.kind == faultBroken || m.fault.kind == faultGarbage):
	default:
		m.fault = nil
	}
	m.mu.Unlock()
	m.registry.tell(m)
}

// describe asks a plugin who it is.
func (m *member) describe(ctx context.Context) {
	d, f := call(ctx, m.settings().ClaimTimeout, m.plugin.Describe)
	switch {
	case f != nil:
		m.note(f)
	case m.remote != nil: // and so it has learned
	case d.Name != m.name:
		m.note(&fault{faultIncompatible, fmt.Errorf("it says that its name is %q", d.Name)})
	default:
		m.introduced(d.EngineVersion, true)
	}
}

func (m *member) status() PluginStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := PluginStatus{
		Name: m.name, Address: m.entry.Address, Source: m.entry.source, Required: m.entry.Required,
		WhenUnavailable: m.entry.WhenUnavailable, State: StateReady, EngineVersion: m.version, LastSeen: m.seen,
	}
	if len(m.entry.Command) > 0 {
		s.Address = strings.Join(m.entry.Command, " ")
	}
	switch {
	case m.plugin == nil:
		s.State = StateDisabled
		return s
	case m.remote == nil:
		s.Capabilities = capabilitiesOf(m.plugin)
	case m.record != nil:
		s.ProtocolVersion, s.Capabilities = protocol.Version, m.record.Description.Capabilities.Words()
	}
	f := m.fault
	if m.quarantine.holds(time.Now()) {
		f = m.quarantine.fault(m.name)
	}
	if f == nil {
		return s
	}
	switch f.kind {
	case faultError:
		s.State = StateEngineUnavailable
	case faultIncompatible:
		s.State = StateIncompatible
	case faultQuarantined:
		s.State = StateQuarantined
	default:
		s.State = StateUnreachable
	}
	s.LastError, s.Advice = "it "+f.clause(), repair(m.entry, f, asNobodys)
	return s
}
