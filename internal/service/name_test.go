package service

import (
	"errors"
	"slices"
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

func TestChildrenFirst(t *testing.T) {
	list := core.Image{ID: "list", Instances: []core.ImageID{"child"}}
	base, middle := core.Image{ID: "base"}, core.Image{ID: "middle", Parent: "base"}
	child, round := core.Image{ID: "child", Parent: "middle"}, core.Image{ID: "round", Parent: "round"}
	var got []string
	for _, i := range childrenFirst([]core.Image{base, middle, child, round, list}) {
		got = append(got, string(i.ID))
	}
	for _, pair := range [][2]string{{"list", "child"}, {"child", "middle"}, {"middle", "base"}} {
		if slices.Index(got, pair[0]) > slices.Index(got, pair[1]) {
			t.Errorf("%s after %s: %v", pair[0], pair[1], got)
		}
	}
}
