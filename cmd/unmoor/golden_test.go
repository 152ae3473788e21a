package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/config"
)

var update = flag.Bool("update", false, "write the golden files anew")

// mixed is an image that everybody holds.
func mixed() *fake {
	f := newFake()
	web := f.image("3f2a9c", "localhost/web:1")
	f.owned("91bc", "web", web, "podman", core.StateRunning, 22402)
	db := f.owned("92bc", "db", web, "podman", core.StateRunning, 22500)
	f.group(db, "pod shop")
	f.owned("93bc", "old", web, "podman", core.StateStopped)
	f.owned("b1", "web-working-container", web, "buildah", core.StateCreated)
	u := f.container("c1", "mystery", web)
	f.use(u, 333, "sleep 1000", "working directory in the container")
	f.container("c2", "leftover", web)
	f.image("44aa", "localhost/other:latest", "localhost/other:2")
	return f
}

// down has a container whose owner does not answer, and one that two claim.
func down() *fake {
	f := mixed()
	web := f.snapshot.Images[0].ID
	c := f.container("d1", "perhaps", web)
	f.holdings[c] = core.Holding{Kind: core.Undetermined, Owners: []string{"podman"},
		Reason: "podman, which may own it, did not answer within 30s",
		Advice: `see why podman hangs, or set [plugin.podman] when_unavailable = "ignore" in config.toml to treat its containers as nobody's`}
	c = f.container("d2", "both", web)
	f.holdings[c] = core.Holding{Kind: core.Contested, Owners: []string{"buildah", "podman"}}
	return f
}

func crowd() *fake {
	f := newFake()
	web := f.image("3f2a9c", "localhost/web:1")
	for i := range 300 {
		f.owned(fmt.Sprintf("a%04d", i), fmt.Sprintf("w%d", i), web, "podman", core.StateStopped)
	}
	for i := range 200 {
		f.container(fmt.Sprintf("b%04d", i), fmt.Sprintf("u%d", i), web)
	}
	return f
}

func single() *fake {
	f := newFake()
	web := f.image("3f2a9c", "localhost/web:1")
	f.owned("91bc", "web", web, "podman", core.StateRunning, 22402)
	return f
}

func shared() *fake {
	f := single()
	f.container("c2", "leftover", f.snapshot.Images[0].ID)
	return f
}

func family() *fake {
	f := newFake()
	base := f.image("aa11", "localhost/base:1")
	f.image("bb11", "localhost/app:1")
	f.snapshot.Images[1].Parent = base
	return f
}

// guarded is what testdata/protect.toml and CRI-O keep.
func guarded() *fake {
	f := family()
	f.image("cc11", "localhost/pause:1")
	f.image("dd11", "localhost/db:1")
	f.pins = map[core.ImageID]core.Pin{
		f.snapshot.Images[2].ID: {Pinned: core.PinnedYes, Owners: []string{"crio"}, Reason: "pinned by CRI-O", Advice: "take it out of pinned_images"},
		f.snapshot.Images[0].ID: {Owners: []string{"crio"}, Reason: "crio, which may pin it, did not answer within 30s", Advice: "see why crio hangs"},
	}
	f.owned("e1", "vault", f.snapshot.Images[3].ID, "podman", core.StateStopped)
	f.owned("e2", "store", f.snapshot.Images[3].ID, "podman", core.StateRunning, 22402)
	h := f.holdings[core.ContainerID(id("e2"))]
	h.Claim.Labels = map[string]string{"tier": "db"}
	f.holdings[core.ContainerID(id("e2"))] = h
	return f
}

// attic has all kinds of things that nobody uses, and some that somebody does.
func attic() *fake {
	f := newFake()
	web := f.image("3f2a9c", "localhost/web:1")
	f.owned("91bc", "web", web, "podman", core.StateRunning, 22402)
	f.owned("93bc", "old", web, "podman", core.StateStopped)
	f.owned("b1", "web-working-container", web, "buildah", core.StateStopped)
	f.container("c2", "leftover", f.image("44aa"))
	base := f.image("aa11", "localhost/base:1")
	f.image("bb11", "localhost/app:1", "localhost/app:2")
	f.snapshot.Images[3].Parent = base
	shared := core.LayerID(id("1aaa11"))
	f.snapshot.Images[3].LayerSizes = map[core.LayerID]int64{shared: 4_400_000, core.LayerID(id("1abb11")): 2_000_000}
	f.container("d1", "in use", f.image("dd11", "localhost/tool:1"))
	f.use(core.ContainerID(id("d1")), 333, "sleep 1000", "working directory in the container")
	f.snapshot.Layers = []core.StoredLayer{{ID: core.LayerID(id("1c01")), Bytes: 7_000_000}, {ID: core.LayerID(id("1c02")), Bytes: -1},
		{ID: core.LayerID(id("1c03")), Bytes: 9_000_000, ReadOnly: true}}
	return f
}

func TestGolden(t *testing.T) {
	failing := func() *fake { f := single(); f.stopErr = errBoom; return f }
	broken := func() *fake { f := attic(); f.deleteErr = errBoom; return f }
	control := func() *fake {
		f := newFake()
		web := f.image("3f2a9c", "localhost/web:1")
		c := f.container("c1", "x\x1b[31m", web)
		f.use(c, 12, "sh -c \x1b]0;evil\x07 "+strings.Repeat("long ", 40), "root in the container")
		return f
	}
	completed := func() *fake {
		f := newFake()
		f.image("44aa", "localhost/other:latest")
		image := core.Image{ID: core.ImageID(id("3f2a9c")), Names: []string{"localhost/web:1"}}
		f.completed = []core.Interrupted{{Image: image, Deleted: []core.Image{image}}}
		return f
	}
	for _, tt := range []struct {
		name string
		on   func() *fake
		args string
		code int
	}{
		{"rmi refused by one", single, "rmi web:1", 2},
		{"rmi refused by many", mixed, "rmi web:1", 2},
		{"rmi force refused", mixed, "rmi -f web:1", 2},
		{"rmi force idle refused", mixed, "rmi --force=idle web:1", 2},
		{"rmi refused by owners", down, "rmi --force=kill web:1", 2},
		{"rmi refused by owners without force", down, "rmi web:1", 2},
		{"rmi refused by a crowd", crowd, "rmi web:1", 2},
		{"rmi kill", mixed, "rmi --force=kill -t 5 web:1", 0},
		{"rmi kill quiet", mixed, "rmi --force=kill -q web:1", 0},
		{"rmi force json", shared, "rmi -f --format json web:1 nope", 1},
		{"rmi one of several names", mixed, "rmi other", 0},
		{"rmi by id with several names", mixed, "rmi 44aa", 2},
		{"rmi of a parent", family, "rmi base:1", 0},
		{"rmi of a parent by id", family, "rmi aa11", 2},
		{"rmi all", family, "rmi --all", 0},
		{"rmi several", mixed, "rmi nope other web:1", 2},
		{"rmi engine fails", failing, "rmi -f web:1", 125},
		{"rmi engine fails json", failing, "rmi -f --format json web:1", 125},
		{"rmi control characters", control, "rmi web:1", 2},
		{"rmi completes", completed, "rmi web:1", 0},
		{"rmi template", mixed, "rmi --force=kill --format {{.Reference}}\\t{{.Status}} web:1 other", 0},
		{"plan", mixed, "plan --force=kill web:1", 0},
		{"plan blocked", mixed, "plan web:1", 2},
		{"plan json", mixed, "plan --force=stop --format json web:1", 2},
		{"plan container", mixed, "plan old", 0},
		{"rm idle", mixed, "rm old leftover", 0},
		{"rm refused", mixed, "rm web mystery", 2},
		{"rm force", mixed, "rm -f web db", 0},
		{"rm json", mixed, "rm --format json old", 0},
		{"why image", down, "why web:1", 0},
		{"why container", mixed, "why mystery", 0},
		{"why idle container", mixed, "why leftover", 0},
		{"why free image", family, "why app:1", 0},
		{"why json", single, "why --format json web:1", 0},
		{"why unknown", single, "why nope", 1},
		{"ps", down, "ps -s", 0},
		{"ps exited", mixed, "ps -f status=exited", 0},
		{"ps json", single, "ps --format json", 0},
		{"ps table", down, "ps --format table\\040{{.ID}}\\t{{.Use}} --filter use=in_use", 0},
		{"ps row json", single, "ps --format {{json\\040.}}", 0},
		{"images row json", family, "images --format {{json\\040.}}", 0},
		{"images in capitals", family, "images --format JSON", 0},
		{"why of a container in a pod", mixed, "why db", 0},
		{"rm of a container in a pod", mixed, "rm db", 2},
		{"rm while its owner is down", down, "rm perhaps", 2},
		{"rmi with global flags", mixed, "--runroot /run/o'x --storage-driver vfs --storage-opt vfs.a=b rmi web:1", 2},
		{"rmi template id", mixed, "rmi --force=kill --format {{.ID}} web:1", 0},
		{"rmi protected", guarded, "--config testdata/protect.toml rmi --force=kill app:1", 2},
		{"rmi pinned", guarded, "rmi --force=kill pause:1", 2},
		{"rmi perhaps pinned", guarded, "rmi --force=kill base:1", 2},
		{"rmi of protected containers", guarded, "--config testdata/protect.toml rmi -f db:1", 2},
		{"rmi all with protected", guarded, "--config testdata/protect.toml rmi --all -f", 2},
		{"rm protected", guarded, "--config testdata/protect.toml rm -f vault", 2},
		{"rm protected json", guarded, "--config testdata/protect.toml rm -f --format json vault", 2},
		{"plan protected", guarded, "--config testdata/protect.toml plan -f app:1", 2},
		{"why protected image", guarded, "--config testdata/protect.toml why app:1", 0},
		{"why pinned image json", guarded, "why --format json pause:1", 0},
		{"why protected container", guarded, "--config testdata/protect.toml why store", 0},
		{"images", mixed, "images", 0},
		{"doctor", wrecked, "doctor", 2},
		{"doctor json", wrecked, "doctor --format json shop/web", 2},
		{"doctor of a sound store", single, "doctor", 0},
		{"doctor without an engine", silenced, "doctor", 125},
		{"doctor repairs what is dead", wrecked, "doctor --repair", 2},
		{"doctor of one that is not damaged", wrecked, "doctor --repair web", 1},
		{"images json", family, "images --format json", 0},
		{"build", building, "build -t localhost/new:1 --pull --layers .", 0},
		{"build fails", building, "build --target broken .", 125},
		{"build without an engine", single, "build .", 125},
		{"prune", attic, "prune --force", 0},
		{"prune dry run", attic, "prune --dry-run --all --stopped --build-leftovers", 0},
		{"prune dry run json", attic, "prune --dry-run --format json", 0},
		{"prune dry run quiet", attic, "prune --dry-run -q --all", 0},
		{"prune all", attic, "prune --force --all --stopped --build-leftovers", 0},
		{"prune all quiet", attic, "prune -f -a -q", 0},
		{"prune by owner", attic, "prune -f --stopped --filter owner=podman", 0},
		{"prune by reference", attic, "prune -f --all --filter reference=app", 0},
		{"prune json", attic, "prune --force --format json --all", 0},
		{"prune template", attic, "prune --force --format {{.Reference}}\\t{{.Status}} --all", 0},
		{"prune what is protected", guarded, "--config testdata/protect.toml prune --force --all", 0},
		{"prune verbosely", down, "prune --force --all --stopped -v", 0},
		{"prune while an owner is down", down, "prune --force --all", 0},
		{"prune unused for a day", attic, "prune --force --all --unused-for 1d", 0},
		{"prune nothing", single, "prune --force", 0},
		{"prune with a plan that does not hold", attic, "prune --plan 0000000000000000000000000000000000000000000000000000000000000000", 2},
		{"prune where an engine fails", broken, "prune --force", 125},
		{"df", attic, "df", 0},
		{"df verbose", attic, "df -v", 0},
		{"df json", attic, "df --format json", 0},
		{"df json verbose", guarded, "--config testdata/protect.toml df --format json -v", 0},
		{"df template", attic, "df --format table\\040{{.Type}}\\t{{.RawSize}}\\t{{.Reclaimable}}\\t{{.AfterStop}}\\t{{.Never}}", 0},
		{"df of an empty store", newFake, "df", 0},
	} {
		t.Run(strings.ReplaceAll(tt.name, " ", "-"), func(t *testing.T) {
			var args []string
			for _, a := range strings.Fields(tt.args) {
				args = append(args, strings.ReplaceAll(a, `\040`, " "))
			}
			path := filepath.Join("testdata", "golden", strings.ReplaceAll(tt.name, " ", "-")+".txt")
			f := tt.on()
			got := f.call(t, args...)
			text := scrubbed(args, got)
			if *update {
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			golden, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			check := func(f *fake, got call, want, text string) {
				t.Helper()
				if got.code != tt.code {
					t.Errorf("exit %d, want %d", got.code, tt.code)
				}
				if diff := cmp.Diff(want, text); diff != "" {
					t.Errorf("(-%s +got):\n%s", path, diff)
				}
				if tt.code == 2 && f.changes > 0 && !strings.Contains(tt.name, "several") && tt.name != "rm refused" && !strings.Contains(tt.args, "--repair") {
					t.Errorf("refused, and %d changes were made", f.changes)
				}
			}
			check(f, got, string(golden), text)

			// The same through a daemon, which has its own configuration.
			f = tt.on()
			var protection core.Protection
			want := string(golden)
			switch args[0] {
			case "--config":
				protection = protectionOf(t, args[1])
				want = strings.ReplaceAll(want, "unmoor --config "+args[1], "unmoor")
				args = args[2:]
			case "--runroot":
				return // names a store, and so no daemon
			}
			got = caller{fake: f, socket: f.serve(t, protection)}.call(t, args...)
			check(f, got, want, scrubbed(args, got))
		})
	}
}

// scrubbed is what a call printed, without what changes from day to day.
func scrubbed(args []string, c call) string {
	text := fmt.Sprintf("$ unmoor %s\n%s-- stderr --\n%s-- exit %d\n", strings.Join(args, " "), c.stdout, c.stderr, c.code)
	text = regexp.MustCompile(`\d+ (seconds|minutes|hours|days|weeks|months|years) ago`).ReplaceAllString(text, "some time ago")
	text = regexp.MustCompile(`(CREATED|ago)  +`).ReplaceAllString(text, "$1  ")
	text = regexp.MustCompile(`"time": "20[^"]*Z?"(,\n  "(disk|ofImages)")`).ReplaceAllString(text, `"time": "…"$1`)
	return regexp.MustCompile(`"revision": "[0-9a-f]{64}"`).ReplaceAllString(text, `"revision": "…"`)
}

func protectionOf(t *testing.T, file string) core.Protection {
	t.Helper()
	c, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	return protection(c, file)
}
