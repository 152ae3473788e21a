package daemon

import (
	"context"
	"errors"
	"os"
	"os/user"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	iounmoorremoval "github.com/unmoor/unmoor/varlink/removal"

	"github.com/unmoor/unmoor/internal/wire"
)

// methods are the names of the interface's methods.
func methods() []string {
	var names []string
	t := reflect.TypeOf(iounmoorremoval.VarlinkNew).In(0)
	for i := range t.NumMethod() {
		names = append(names, t.Method(i).Name)
	}
	return names
}

func TestEveryMethodHasAClass(t *testing.T) {
	all := methods()
	if len(all) < 14 {
		t.Fatalf("the interface has %d methods only", len(all))
	}
	for _, method := range all {
		if classes[method] == closed {
			t.Errorf("%s is for nobody: say in classes what it does", method)
		}
	}
	for method := range classes {
		if !slices.Contains(all, method) {
			t.Errorf("there is no %s", method)
		}
	}
}

// telephone is a double of the machine's directory of users and groups.
type telephone struct {
	mu     sync.Mutex
	users  map[string]int
	groups map[string]int
	// hang, where set, keeps whoever looks something up.
	hang  chan struct{}
	asked int
}

func (d *telephone) look(table map[string]int, name string) (int, error) {
	d.mu.Lock()
	hang := d.hang
	d.asked++
	d.mu.Unlock()
	if hang != nil {
		<-hang
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if id, ok := table[name]; ok {
		return id, nil
	}
	return 0, errors.New("there is no such name")
}

func (d *telephone) user(name string) (int, error)  { return d.look(d.users, name) }
func (d *telephone) group(name string) (int, error) { return d.look(d.groups, name) }

func TestAccess(t *testing.T) {
	needsInitialUserNamespace(t)
	names := &telephone{users: map[string]int{"alice": 4001, "bob": 4002}, groups: map[string]int{"ops": 5001, "alice": 5002}}
	none := []string{}
	for _, tt := range []struct {
		name        string
		read, write []string
		peer        wire.Peer
		want        []class
	}{
		{"root, with nothing configured", none, none, wire.Peer{}, []class{reading, removing, administering}},
		{"the service's own user", none, none, wire.Peer{UID: os.Getuid(), GID: 7}, []class{reading, removing, administering}},
		{"anybody else, with nothing configured", none, none, wire.Peer{UID: 4001, GID: 4001}, nil},
		{"root's group is not root", none, none, wire.Peer{UID: 4001, GID: 0, Groups: []int{0}}, nil},
		{"a user who may look", []string{"alice"}, none, wire.Peer{UID: 4001, GID: 1}, []class{reading}},
		{"a user who may remove may look", none, []string{"alice"}, wire.Peer{UID: 4001, GID: 1}, []class{reading, removing}},
		{"another user", []string{"alice"}, []string{"alice"}, wire.Peer{UID: 4002, GID: 1}, nil},
		{"by number", []string{"4002"}, none, wire.Peer{UID: 4002, GID: 1}, []class{reading}},
		{"a user's number is no group's", []string{"4002"}, none, wire.Peer{UID: 1, GID: 4002, Groups: []int{4002}}, nil},
		{"a group by number", none, []string{"@5001"}, wire.Peer{UID: 1, GID: 5001}, []class{reading, removing}},
		{"a group's number is no user's", none, []string{"@5001"}, wire.Peer{UID: 5001, GID: 1}, nil},
		{"the first group", []string{"@ops"}, none, wire.Peer{UID: 1, GID: 5001}, []class{reading}},
		{"a supplementary group", none, []string{"@ops"}, wire.Peer{UID: 1, GID: 1, Groups: []int{9, 5001}}, []class{reading, removing}},
		{"a user is not the group of the same name", []string{"alice"}, none, wire.Peer{UID: 5002, GID: 5002}, nil},
		{"a group is not the user of the same name", []string{"@alice"}, none, wire.Peer{UID: 4001, GID: 4001}, nil},
		{"anybody may look", []string{"*"}, []string{"bob"}, wire.Peer{UID: 4001, GID: 1}, []class{reading}},
		{"a name that nobody has", []string{"mallory"}, []string{"@mallory"}, wire.Peer{UID: 0x7fff0000, GID: 1}, nil},
		{"the second entry", []string{"mallory", "@mallory", "bob"}, none, wire.Peer{UID: 4002, GID: 1}, []class{reading}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, err := newAccess(tt.read, tt.write, names)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range []class{closed, reading, removing, administering} {
				if got, want := a.allows(t.Context(), tt.peer, c), slices.Contains(tt.want, c); got != want {
					t.Errorf("class %d: allowed %v, want %v", c, got, want)
				}
			}
		})
	}
}

func needsInitialUserNamespace(t *testing.T) {
	t.Helper()
	if initial, err := inInitialUserNamespace(); err != nil || !initial {
		lacking(t, "needs the initial user namespace (%v)", err)
	}
}

func TestAccessRefuses(t *testing.T) {
	needsInitialUserNamespace(t)
	for name, tt := range map[string]struct{ read, write []string }{
		"anybody in write":      {nil, []string{"*"}},
		"nobody":                {[]string{""}, nil},
		"a group without name":  {[]string{"@"}, nil},
		"an ID that stands for": {nil, []string{"4294967295"}},
		"an ID out of range":    {nil, []string{"@99999999999"}},
	} {
		if _, err := NewAccess(tt.read, tt.write); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestNamesAreLookedUpAnew: what becomes of a name counts without a restart.
func TestNamesAreLookedUpAnew(t *testing.T) {
	needsInitialUserNamespace(t)
	names := &telephone{groups: map[string]int{}}
	a, err := newAccess(nil, []string{"@ops"}, names)
	if err != nil {
		t.Fatal(err)
	}
	peer := wire.Peer{UID: 1, GID: 1, Groups: []int{5001}}
	later := func() { a.write[0].found.at = a.write[0].found.at.Add(-lookupKept) }
	if a.allows(t.Context(), peer, removing) {
		t.Error("a group that there is not lets its members in")
	}
	names.groups["ops"] = 5001
	later()
	if !a.allows(t.Context(), peer, removing) {
		t.Error("a group that was made does not count")
	}
	for range 100 {
		a.allows(t.Context(), peer, removing)
	}
	if names.asked > 3 {
		t.Errorf("the directory was asked %d times within a second", names.asked)
	}
	names.groups["ops"] = 5009
	later()
	if a.allows(t.Context(), peer, removing) {
		t.Error("a group that has another number now still counts")
	}
}

// TestDirectoryThatHangs: who cannot be looked up may do nothing, and root does not wait.
func TestDirectoryThatHangs(t *testing.T) {
	needsInitialUserNamespace(t)
	names := &telephone{users: map[string]int{"alice": 4001}, hang: make(chan struct{})}
	a, err := newAccess([]string{"alice"}, nil, names)
	if err != nil {
		t.Fatal(err)
	}
	if !a.allows(t.Context(), wire.Peer{}, removing) {
		t.Error("root is kept out")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	alice := wire.Peer{UID: 4001, GID: 1}
	if a.allows(ctx, alice, reading) {
		t.Error("a user who could not be looked up is let in")
	}
	close(names.hang)
	if !a.allows(t.Context(), alice, reading) {
		t.Error("the user is kept out although the directory answers again")
	}
	if names.asked != 1 {
		t.Errorf("%d look-ups were begun while one hung", names.asked)
	}
}

func TestSystemDirectory(t *testing.T) {
	u, err := user.Current()
	if err != nil {
		lacking(t, "needs a record of this user: %v", err)
	}
	g, err := user.LookupGroupId(u.Gid)
	if err != nil {
		lacking(t, "needs a record of this group: %v", err)
	}
	if id, err := (system{}).user(u.Username); err != nil || strconv.Itoa(id) != u.Uid {
		t.Errorf("%s is %d (%v), want %s", u.Username, id, err, u.Uid)
	}
	if id, err := (system{}).group(g.Name); err != nil || strconv.Itoa(id) != g.Gid {
		t.Errorf("%s is %d (%v), want %s", g.Name, id, err, g.Gid)
	}
	for _, name := range []string{"no-such-name-of-unmoor"} {
		if _, err := (system{}).user(name); err == nil {
			t.Errorf("there is a user %s", name)
		}
		if _, err := (system{}).group(name); err == nil {
			t.Errorf("there is a group %s", name)
		}
	}
}

// lacking skips a test that cannot run here; CI has what it takes, and there it is a failure.
func lacking(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}
