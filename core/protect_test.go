package core

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestPatterns(t *testing.T) {
	for _, tt := range []struct {
		pattern, text string
		want          bool
	}{
		{"docker.io/library/nginx:latest", "docker.io/library/nginx:latest", true},
		{"docker.io/library/nginx", "docker.io/library/nginx:latest", false},
		{"docker.io/*", "docker.io/library/nginx:latest", true},
		{"*/nginx:*", "docker.io/library/nginx:latest", true},
		{"*/nginx:*", "docker.io/library/nginx", false},
		{"*:latest", "docker.io/library/nginx:latest", true},
		{"nginx", "docker.io/library/nginx", false},
		{"web-?", "web-1", true},
		{"web-?", "web-10", false},
		{"web-?", "web-", false},
		{"w?b", "wéb", true},
		{"*", "", true},
		{"*", "anything/at:all", true},
		{"**a**", "bab", true},
		{"*ab*ab*", "ab", false},
		{"*ab*ab", "ababxab", true},
		{"", "", true},
		{"", "a", false},
		{"a[b]", "ab", false},
		{"A", "a", false},
	} {
		if got := fits(tt.pattern, tt.text); got != tt.want {
			t.Errorf("%q fits %q: %v", tt.pattern, tt.text, got)
		}
	}
	// A pattern of stars takes no time to speak of.
	if fits(strings.Repeat("*a", 50)+"b", strings.Repeat("a", 10000)) {
		t.Error("what has no b fits")
	}
}

func TestImageProtection(t *testing.T) {
	id := strings.Repeat("ab", 32)
	for _, tt := range []struct {
		name       string
		protection Protection
		image      Image
		want       string
	}{
		{"by its full name", Protection{Images: []string{"quay.io/a/b:1"}}, Image{Names: []string{"quay.io/a/b:1"}},
			`protected by [protect] images = "quay.io/a/b:1"`},
		{"by its name without tag", Protection{Images: []string{"quay.io/a/b"}}, Image{Names: []string{"x/y:1", "quay.io/a/b:1"}},
			`protected by [protect] images = "quay.io/a/b"`},
		{"by its name without digest", Protection{Images: []string{"localhost:5000/b"}}, Image{Names: []string{"localhost:5000/b@sha256:" + id}},
			`protected by [protect] images = "localhost:5000/b"`},
		{"a port is no tag", Protection{Images: []string{"localhost"}}, Image{Names: []string{"localhost:5000/b"}}, ""},
		{"by its ID", Protection{Images: []string{"abab*"}}, Image{ID: ImageID(id)}, `protected by [protect] images = "abab*"`},
		{"by its ID as engines print it", Protection{Images: []string{"sha256:" + id}}, Image{ID: ImageID(id)},
			`protected by [protect] images = "sha256:` + id + `"`},
		{"by a label", Protection{Labels: []string{"keep"}}, Image{Labels: map[string]string{"keep": ""}}, `protected by [protect] labels = "keep"`},
		{"by a label with a value", Protection{Labels: []string{"tier=db=1"}}, Image{Labels: map[string]string{"tier": "db=1"}},
			`protected by [protect] labels = "tier=db=1"`},
		{"a label with another value", Protection{Labels: []string{"tier=db"}}, Image{Labels: map[string]string{"tier": "web"}, LabelsKnown: true}, ""},
		{"a label without a value is one with an empty one", Protection{Labels: []string{"tier="}}, Image{Labels: map[string]string{"tier": "web"}, LabelsKnown: true}, ""},
		{"by several things", Protection{Images: []string{"a", "b*", "c"}, Labels: []string{"k"}}, Image{Names: []string{"a", "c"}, Labels: map[string]string{"k": "v"}},
			`protected by [protect] images = "a", images = "c" and labels = "k"`},
		{"labels that cannot be read", Protection{Labels: []string{"keep"}}, Image{},
			"perhaps protected by [protect] labels: its configuration cannot be read"},
		{"labels that nobody asks for", Protection{Images: []string{"a"}}, Image{}, ""},
		{"another name", Protection{Images: []string{"quay.io/*"}}, Image{Names: []string{"docker.io/quay.io/x:1"}}, ""},
		{"a pattern for containers", Protection{Containers: []string{"*"}}, Image{Names: []string{"a"}}, ""},
		{"nothing is protected", Protection{}, Image{ID: ImageID(id), Names: []string{"a"}, Labels: map[string]string{"k": "v"}}, ""},
	} {
		if got, _ := tt.protection.image(tt.image); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestContainerProtection(t *testing.T) {
	c := Container{ID: "c0ffee", Names: []string{"k8s_app_web_default_uid_0"}}
	h := Holding{Kind: Owned, Owners: []string{"crio"}, Claim: Claim{DisplayName: "default/web/app", Labels: map[string]string{"app": "db"}}}
	for want, protection := range map[string]Protection{
		`protected by [protect] containers = "default/*"`: {Containers: []string{"default/*"}},
		`protected by [protect] containers = "k8s_app_*"`: {Containers: []string{"k8s_app_*"}},
		`protected by [protect] containers = "c0ffee"`:    {Containers: []string{"c0ffee"}},
		`protected by [protect] labels = "app=db"`:        {Labels: []string{"app=db", "db"}},
		"": {Containers: []string{"default", "web"}, Labels: []string{"app=web"}, Images: []string{"*"}},
	} {
		if got := protection.container(c, h); got != want {
			t.Errorf("%+v: %q, want %q", protection, got, want)
		}
	}
	// What has no name is not protected by a pattern that fits the empty text.
	if got := (Protection{Containers: []string{"?*", "**"}}).container(Container{}, Holding{}); got != "" {
		t.Error(got)
	}
}

// A protected or pinned image stays as it is, with every name, and so does a protected container with
// all that would go along.
func TestDecideProtected(t *testing.T) {
	pinned := Pin{Pinned: PinnedYes, Owners: []string{"crio"}, Reason: "pinned by CRI-O"}
	silent := Pin{Owners: []string{"crio"}, Reason: "crio, which may pin it, does not answer"}
	tests := []struct {
		name  string
		build func(w *world) Request
		want  string
	}{
		{"a protected image", func(w *world) Request {
			w.protection.Images = []string{"a"}
			return Request{Images: images(w.image("img", "a:1")), Force: ForceKill}
		}, "untag a:1; delete_image img; BLOCKED protected img by none"},
		{"a protected image keeps a name that is not", func(w *world) Request {
			w.protection.Images = []string{"a:1"}
			img := w.image("img", "a:1", "b:1")
			return Request{Images: []ImageTarget{{ID: img, Name: "b:1"}, {ID: img, Name: "a:1"}}, Force: ForceKill}
		}, "untag b:1; BLOCKED protected img by none | untag a:1; BLOCKED protected img by none"},
		{"a protected parent keeps its name", func(w *world) Request {
			w.protection.Images = []string{"p:1"}
			p := w.image("p", "p:1")
			w.child("c", p, "c:1")
			return Request{Images: []ImageTarget{{ID: p, Name: "p:1"}}, Force: ForceKill}
		}, "untag p:1; BLOCKED protected p by none"},
		{"a protected image in a read-only store", func(w *world) Request {
			w.protection.Images = []string{"*"}
			img := w.image("img", "a:1")
			w.images[0].ReadOnly = true
			return Request{Images: images(img), Force: ForceKill}
		}, "BLOCKED protected img by none; BLOCKED read_only_store img by none"},
		{"a protected image costs no container", func(w *world) Request {
			w.protection.Images = []string{"a:1"}
			img := w.image("img", "a:1")
			w.start(w.container("run", img, "podman"), 10)
			return Request{Images: images(img), Force: ForceKill}
		}, "stop run; remove run; untag a:1; delete_image img; BLOCKED protected img by none"},
		{"an image is protected by a label", func(w *world) Request {
			w.protection.Labels = []string{"keep"}
			img := w.image("img", "a:1")
			w.images[0].Labels = map[string]string{"keep": "yes"}
			return Request{Images: images(img), Force: ForceKill}
		}, "untag a:1; delete_image img; BLOCKED protected img by none"},
		{"an image whose labels cannot be read", func(w *world) Request {
			w.protection.Labels = []string{"keep"}
			img := w.image("img", "a:1")
			w.images[0].LabelsKnown = false
			return Request{Images: images(img), Force: ForceKill}
		}, "untag a:1; delete_image img; BLOCKED protected img by none"},
		{"an image that an engine pins", func(w *world) Request {
			img := w.image("img", "a:1")
			w.pins[img] = pinned
			return Request{Images: []ImageTarget{{ID: img, Name: "a:1"}}, Force: ForceKill}
		}, "untag a:1; delete_image img; BLOCKED protected img by none"},
		{"an image that an engine may pin", func(w *world) Request {
			img := w.image("img", "a:1")
			w.pins[img] = silent
			return Request{Images: images(img), Force: ForceKill}
		}, "untag a:1; delete_image img; BLOCKED owner_unavailable img by none"},
		{"an image about which an engine talks nonsense", func(w *world) Request {
			img := w.image("img", "a:1")
			w.pins[img] = Pin{Garbage: true}
			return Request{Images: images(img), Force: ForceKill}
		}, "untag a:1; delete_image img; BLOCKED owner_garbage img by none"},
		{"protected and pinned", func(w *world) Request {
			w.protection.Images = []string{"a"}
			img := w.image("img", "a:1")
			w.pins[img] = pinned
			return Request{Images: images(img), Force: ForceKill}
		}, "untag a:1; delete_image img; BLOCKED protected img by none; BLOCKED protected img by none"},
		{"a protected dangling parent stays", func(w *world) Request {
			w.protection.Labels = []string{"keep"}
			p := w.image("p")
			w.images[0].Labels = map[string]string{"keep": ""}
			return Request{Images: images(w.child("c", p, "c:1")), Force: ForceKill}
		}, "untag c:1; delete_image c"},
		{"a pinned dangling parent stays", func(w *world) Request {
			p := w.image("p")
			w.pins[p] = pinned
			return Request{Images: images(w.child("c", p, "c:1")), Force: ForceKill}
		}, "untag c:1; delete_image c"},
		{"a dangling parent that may be pinned stays, and with it what it is built on", func(w *world) Request {
			p := w.child("p", w.image("g"))
			w.pins[p] = silent
			return Request{Images: images(w.child("c", p, "c:1")), Force: ForceKill}
		}, "untag c:1; delete_image c"},
		{"of all images the protected one stays", func(w *world) Request {
			w.protection.Images = []string{"b"}
			a, b := w.image("imga", "a:1"), w.image("imgb", "b:1", "c:1")
			return Request{Images: []ImageTarget{{ID: a, All: true}, {ID: b, All: true}}, Force: ForceKill}
		}, "untag a:1; delete_image imga | untag b:1; untag c:1; delete_image imgb; BLOCKED protected imgb by none"},
		{"a protected container", func(w *world) Request {
			w.protection.Containers = []string{"idle"}
			return Request{Containers: []ContainerID{w.container("idle", w.image("img", "a:1"), "")}, Force: ForceKill}
		}, "delete_container idle; BLOCKED protected idle by none"},
		{"a protected container keeps its image", func(w *world) Request {
			w.protection.Containers = []string{"id*"}
			img := w.image("img", "a:1")
			w.container("idle", img, "podman")
			return Request{Images: images(img), Force: ForceKill}
		}, "remove idle; untag a:1; delete_image img; BLOCKED protected idle by none"},
		{"a container that its owner labels", func(w *world) Request {
			w.protection.Labels = []string{"keep=yes"}
			c := w.container("run", w.image("img", "a:1"), "podman")
			w.claims[c] = Claim{Labels: map[string]string{"keep": "yes"}}
			w.start(c, 10)
			return Request{Containers: []ContainerID{c}, Force: ForceStop}
		}, "stop run; remove run; BLOCKED protected run by none"},
		{"a protected member keeps its pod", func(w *world) Request {
			w.protection.Containers = []string{"app"}
			img, other := w.image("img", "a:1"), w.image("other", "o:1")
			infra := w.container("infra", img, "podman")
			w.claims[infra] = Claim{TakesAlong: []ContainerID{w.container("app", other, "podman")}}
			return Request{Images: images(img), Containers: []ContainerID{infra}, Force: ForceKill}
		}, "remove infra; remove app; untag a:1; delete_image img; BLOCKED protected app by none | remove infra; remove app; BLOCKED protected app by none"},
		{"a protected pod does not keep a container of it", func(w *world) Request {
			w.protection.Containers = []string{"infra"}
			img := w.image("img", "a:1")
			app := w.container("app", img, "podman")
			w.claims[w.container("infra", img, "podman")] = Claim{TakesAlong: []ContainerID{app}}
			return Request{Containers: []ContainerID{app}, Force: ForceKill}
		}, "remove app"},
		{"a protected container that mounts the image as a volume", func(w *world) Request {
			w.protection.Containers = []string{"vol"}
			img := w.image("img", "a:1")
			w.claims[w.container("vol", w.image("other", "o:1"), "podman")] = Claim{ImageVolumes: []ImageID{img}}
			return Request{Images: images(img), Force: ForceKill}
		}, "remove vol; untag a:1; delete_image img; BLOCKED protected vol by none"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			r := tt.build(w)
			var got []string
			for _, r := range plan(t, w, r).Removals {
				got = append(got, summary(r))
				// A container in use or idle blocks besides; here only protection matters.
				for _, b := range r.Blockers {
					if b.Detail == "" || b.Advice == "" && b.Reason == ReasonProtected && len(b.Owners) == 0 {
						t.Errorf("no words: %+v", b)
					}
				}
			}
			if s := strings.Join(got, " | "); s != tt.want {
				t.Errorf("\n got %s\nwant %s", s, tt.want)
			}
		})
	}
}

func TestProtectionIsNamed(t *testing.T) {
	w := newWorld()
	w.protection = Protection{Images: []string{"*/a"}, File: "/etc/unmoor/config.toml"}
	img := w.image("img", "x/a:1")
	w.pins[img] = Pin{Pinned: PinnedYes, Owners: []string{"crio"}, Advice: "ask it"}
	found := plan(t, w, Request{Images: images(img), Force: ForceKill}).Removals[0].Blockers
	if len(found) != 2 {
		t.Fatalf("%+v", found)
	}
	if b := found[0]; b.Detail != `protected by [protect] images = "*/a"` || !strings.Contains(b.Advice, "[protect] in /etc/unmoor/config.toml") {
		t.Errorf("%+v", b)
	}
	if b := found[1]; b.Detail != "pinned by crio" || b.Advice != "ask it" || !slices.Equal(b.Owners, []string{"crio"}) {
		t.Errorf("%+v", b)
	}
}

func TestRevisionFollowsProtection(t *testing.T) {
	w := newWorld()
	p := w.image("p")
	img := w.child("img", p, "a:1")
	w.container("c", img, "")
	seen := make(map[string]string)
	note := func(what string) {
		t.Helper()
		revision := plan(t, w, Request{Images: images(img), Force: ForceKill}).Revision
		if other, ok := seen[revision]; ok {
			t.Errorf("%s and %s have one revision", what, other)
		}
		seen[revision] = what
	}
	note("nothing protected")
	w.pins[p] = Pin{Pinned: PinnedYes}
	note("the parent pinned")
	w.pins[img] = Pin{Pinned: PinnedYes}
	note("both pinned")
	w.pins[img] = Pin{Reason: "down"}
	note("the parent pinned, the image perhaps")
	w.protection.Images = []string{"a"}
	note("the image protected")
	w.protection.Containers = []string{"c"}
	note("image and container protected")
}

func TestPinsAreAskedForWhatMayGo(t *testing.T) {
	for _, tt := range []struct {
		name    string
		request Request
		want    string
	}{
		{"dangling parents too", Request{Images: images("img")}, "img p g"},
		{"each once", Request{Images: images("img", "p")}, "img p g"},
		{"but not without pruning", Request{Images: images("img"), NoPrune: true}, "img"},
		{"a parent with a name is not asked about", Request{Images: images("g")}, "g"},
		{"nobody about containers", Request{Containers: []ContainerID{"c"}}, ""},
	} {
		w := newWorld()
		w.image("base", "b:1")
		w.child("g", "base")
		w.child("p", "g")
		w.child("img", "p", "a:1")
		w.container("c", "base", "")
		plan(t, w, tt.request)
		var got []string
		for _, id := range w.asked {
			got = append(got, string(id))
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%s: asked about %s, want %s", tt.name, s, tt.want)
		}
	}
}

// A name that protects an image and that came after the plan keeps it, as every new name does, also
// where the image is only pruned.
func TestProtectedMeanwhile(t *testing.T) {
	for _, which := range []ImageID{"img", "p"} {
		w := newWorld()
		w.protection.Images = []string{"keep"}
		p := w.image("p")
		img := w.child("img", p, "a:1")
		w.at["begin"] = func() {
			for i := range w.images {
				if w.images[i].ID == which {
					w.images[i].Names = append(w.images[i].Names, "keep:1")
				}
			}
		}
		_, results := remove(t, w, Request{Images: images(img), Force: ForceKill})
		if len(results[0].Failed) != 1 || !errors.Is(results[0].Failed[0].Err, ErrPlanStale) {
			t.Errorf("%s was named: %+v", which, results[0])
		}
		if !w.hasImage(which) || w.hasImage("img") != (which == "img") {
			t.Errorf("%s was named, and %v are left", which, w.images)
		}
	}
}
