package service

import (
	"errors"
	"strings"
	"testing"

	"github.com/unmoor/unmoor/core"
)

func TestRecorded(t *testing.T) {
	id := func(c string) core.ContainerID { return core.ContainerID(strings.Repeat(c, 64)) }
	snapshot := &core.Snapshot{Containers: []core.Container{
		{ID: id("a"), Names: []string{"one"}},
		{ID: "ab" + id("c")[2:], Names: []string{"two", "twice"}},
		{ID: id("d"), Names: []string{"aa", "twice"}},
	}}
	for _, c := range []struct {
		name, ref string
		want      core.ContainerID
		several   bool
	}{
		{"full ID", string(id("a")), id("a"), false},
		{"name", "one", id("a"), false},
		{"unique prefix", "ab", "ab" + id("c")[2:], false},
		{"prefix of several", "a", "", true},
		{"a name before a prefix", "aa", id("d"), false},
		{"name of several", "twice", "", true},
		{"unknown", "none", "", false},
		{"empty", "", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := recorded(snapshot, c.ref)
			var ambiguous *core.AmbiguousError
			switch {
			case got.ID != c.want:
				t.Errorf("%q is %q, want %q", c.ref, got.ID, c.want)
			case c.several != errors.As(err, &ambiguous):
				t.Errorf("%q: %v", c.ref, err)
			case !c.several && c.want == "" && !errors.Is(err, core.ErrContainerUnknown):
				t.Errorf("%q: %v", c.ref, err)
			}
		})
	}
}
