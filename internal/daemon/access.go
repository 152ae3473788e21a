package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/unmoor/unmoor/internal/wire"
)

// class is what a method does, as far as access to it goes. The zero value is for nobody.
type class int

const (
	closed class = iota
	// reading changes nothing.
	reading
	// removing changes the store, or ends what uses it.
	removing
	// administering changes whom Unmoor believes, or lets a caller do all that the service's user can.
	administering
)

// classes are those of the interface's methods. A method that is missing here is refused to everybody.
var classes = map[string]class{
	"GetStore":         reading,
	"Plan":             reading,
	"ListContainers":   reading,
	"ListImages":       reading,
	"Explain":          reading,
	"Examine":          reading,
	"ListPlugins":      reading,
	"Monitor":          reading,
	"PlanPrune":        reading,
	"GetUsage":         reading,
	"Remove":           removing,
	"RemoveImage":      removing,
	"RemoveContainer":  removing,
	"Repair":           removing,
	"Build":            administering,
	"Load":             removing,
	"Import":           removing,
	"Prune":            removing,
	"RegisterPlugin":   administering,
	"UnregisterPlugin": administering,
}

// Access says who may call what. root and the user that the service runs as may call everything; those
// in Write may look and remove; those in Read may look. The zero value is for root and that user alone.
type Access struct {
	own         int
	read, write []*principal
}

// NewAccess reads entries: a user ("alice", "1000"), a group ("@ops", "@1000"), or in read "*". Names are
// looked up when somebody calls, so that what becomes of them counts at once. They mean nothing in a user
// namespace: what is seen there of other users is not their uid.
func NewAccess(read, write []string) (*Access, error) {
	return newAccess(read, write, system{})
}

func newAccess(read, write []string, names directory) (*Access, error) {
	a := &Access{own: os.Getuid()}
	if len(read)+len(write) > 0 {
		initial, err := inInitialUserNamespace()
		if err != nil {
			return nil, fmt.Errorf("say who may call the service: %w", err)
		}
		if !initial {
			return nil, errors.New("say who may call the service: an ordinary user's service is that user's alone, " +
				"since it cannot tell other users apart: leave [access] empty")
		}
	}
	for _, entry := range read {
		p, err := parsePrincipal(entry, names)
		if err != nil {
			return nil, err
		}
		a.read = append(a.read, p)
	}
	for _, entry := range write {
		p, err := parsePrincipal(entry, names)
		if err != nil {
			return nil, err
		}
		if p.anybody {
			return nil, errors.New("say who may call the service: anybody may look, but not remove")
		}
		a.write = append(a.write, p)
	}
	return a, nil
}

// inInitialUserNamespace is whether a uid here is the same one for everybody (user_namespaces(7)).
func inInitialUserNamespace() (bool, error) {
	b, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return false, err
	}
	return slices.Equal(strings.Fields(string(b)), []string{"0", "0", "4294967295"}), nil
}

// allows is whether a peer may call a method of a class.
func (a *Access) allows(ctx context.Context, peer wire.Peer, c class) bool {
	if c == closed {
		return false
	}
	if a.privileged(peer) {
		return true
	}
	switch c {
	case reading:
		return fits(ctx, a.write, peer) || fits(ctx, a.read, peer)
	case removing:
		return fits(ctx, a.write, peer)
	case closed, administering:
	}
	return false
}

// privileged is whether a peer is root or the user that the service runs as.
func (a *Access) privileged(peer wire.Peer) bool { return peer.UID == 0 || peer.UID == a.own }

func fits(ctx context.Context, entries []*principal, peer wire.Peer) bool {
	return slices.ContainsFunc(entries, func(p *principal) bool { return p.fits(ctx, peer) })
}

// principal is an entry.
type principal struct {
	anybody bool
	group   bool
	// id counts where name is empty.
	id    int
	name  string
	names directory

	// mu guards what follows: the last look-up, and the one that goes on.
	mu      sync.Mutex
	found   lookup
	pending chan struct{}
}

type lookup struct {
	id  int
	err error
	at  time.Time
}

// A name is looked up once a second at most, and a caller waits only so long for it: the directory of
// users may be on a network. Who cannot be looked up is let do nothing.
const (
	lookupKept = time.Second
	lookupTime = 5 * time.Second
)

func parsePrincipal(entry string, names directory) (*principal, error) {
	if entry == "*" {
		return &principal{anybody: true}, nil
	}
	p := &principal{names: names}
	p.name, p.group = strings.CutPrefix(entry, "@")
	if p.name == "" {
		return nil, fmt.Errorf("say who may call the service: %q names nobody", entry)
	}
	if strings.Trim(p.name, "0123456789") == "" {
		id, err := strconv.ParseUint(p.name, 10, 32)
		if err != nil || id == 1<<32-1 {
			return nil, fmt.Errorf("say who may call the service: there is no ID %s", p.name)
		}
		p.id, p.name = int(id), ""
	}
	return p, nil
}

func (p *principal) fits(ctx context.Context, peer wire.Peer) bool {
	if p.anybody {
		return true
	}
	id := p.id
	if p.name != "" {
		found := p.lookUp(ctx)
		if found.err != nil {
			return false
		}
		id = found.id
	}
	if p.group {
		return peer.GID == id || slices.Contains(peer.Groups, id)
	}
	return peer.UID == id
}

// lookUp finds the ID of the name as it is now.
func (p *principal) lookUp(ctx context.Context) lookup {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	for {
		p.mu.Lock()
		if !p.found.at.IsZero() && time.Since(p.found.at) < lookupKept {
			defer p.mu.Unlock()
			return p.found
		}
		if p.pending == nil {
			p.pending = make(chan struct{})
			go p.ask(p.pending)
		}
		pending := p.pending
		p.mu.Unlock()
		select {
		case <-ctx.Done():
			return lookup{err: ctx.Err()}
		case <-pending:
		}
	}
}

// ask looks the name up, which may take as long as it likes.
func (p *principal) ask(done chan struct{}) {
	var found lookup
	if p.group {
		found.id, found.err = p.names.group(p.name)
	} else {
		found.id, found.err = p.names.user(p.name)
	}
	found.at = time.Now()
	p.mu.Lock()
	p.found, p.pending = found, nil
	p.mu.Unlock()
	close(done)
}

// directory knows the IDs of users and groups.
type directory interface {
	user(name string) (int, error)
	group(name string) (int, error)
}

// system is the machine's own directory, by nsswitch.conf.
type system struct{}

func (system) user(name string) (int, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(u.Uid)
}

func (system) group(name string) (int, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(g.Gid)
}
