package treemap

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
)

// hostile is what an engine's names may hold.
const hostile = `</script><script>document.title="fooled"</script><img src=x onerror='document.title="fooled"'>{{.}}${1}&amp;` + "\u202e\x00\u2028\xff"

var epoch = time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)

func id(digits string) string { return digits + strings.Repeat("0", 64-len(digits)) }

// sample is an account of a store of all kinds of things; more adds so many images.
func sample(more int) *core.Account {
	a := &core.Account{Store: core.StoreInfo{GraphRoot: "/var/lib/containers/storage", GraphDriver: "overlay"}, ReadOnlyBytes: 5_000_000}
	image := func(digits string, fate core.Fate, bytes int64, owners []string, reason string, names ...string) core.ImageID {
		i := core.ImageAccount{ID: core.ImageID(id(digits)), Names: names, UniqueBytes: bytes, Owners: owners, Fate: fate, Reason: reason}
		a.Images = append(a.Images, i)
		a.Layers = append(a.Layers, core.LayerAccount{ID: core.LayerID(id("1a" + digits)), Bytes: bytes, Images: []core.ImageID{i.ID}, Owners: owners, Fate: fate})
		return i.ID
	}
	web := image("aa11", core.FateAfterStop, 310_000_000, []string{"crio"}, "container shop/web/app (cc33): running in crio", "registry.example/shop/web:4.2")
	api := image("aa12", core.FateAfterStop, 260_000_000, []string{"crio"}, "container shop/api/app (cc34): running in crio", "registry.example/shop/api:1.9")
	image("aa13", core.FateNow, 420_000_000, nil, "nothing uses it", "localhost/builder:latest")
	image("aa14", core.FateNever, 180_000_000, nil, `protected by [protect] images = "localhost/base/*"`, "localhost/base/os:12")
	image("aa15", core.FateNow, 120_000_000, []string{"none"}, "nothing uses it")
	image("aa16", core.FateAfterStop, 90_000_000, []string{"podman"}, "container db (cc35): running in podman", "docker.io/library/postgres:16")
	image("aa17", core.FateNow, 60_000_000, nil, hostile, hostile)
	a.Layers = append(a.Layers,
		core.LayerAccount{ID: core.LayerID(id("1b1")), Bytes: 230_000_000, Images: []core.ImageID{web, api}, Owners: []string{"crio"}, Fate: core.FateAfterStop},
		core.LayerAccount{ID: core.LayerID(id("1b2")), Bytes: 15_000_000, Fate: core.FateNever},
		core.LayerAccount{ID: core.LayerID(id("1b3")), Bytes: -1, Fate: core.FateNever},
		core.LayerAccount{ID: core.LayerID(id("1b4")), Bytes: 5_000_000, ReadOnly: true})
	process := core.Process{PID: 22402, StartTime: 9, Command: "nginx: master process " + hostile, Unit: "crio-cc33.scope"}
	a.Containers = []core.ContainerAccount{
		{ID: core.ContainerID(id("cc33")), Name: "shop/web/app", Image: web, Owners: []string{"crio"}, Group: "pod shop/web", State: core.StateRunning, Use: core.UseInUse,
			Bytes: 48_000_000, Fate: core.FateAfterStop, Reason: "running in crio", Because: []core.Blocker{{Reason: core.ReasonInUse, Detail: "running in crio",
				Advice: "stop it with --force", Evidence: []core.Evidence{{Source: "kernel", Kind: core.EvidenceProcess, Detail: "runs in the container", Process: &process, Path: "/proc/22402/root", Time: epoch}}}}},
		{ID: core.ContainerID(id("cc34")), Name: "shop/api/app", Image: api, Owners: []string{"crio"}, State: core.StateRunning, Use: core.UseInUse, Bytes: 30_000_000, Fate: core.FateAfterStop, Reason: "running in crio"},
		{ID: core.ContainerID(id("cc35")), Name: "db", Owners: []string{"podman"}, State: core.StateRunning, Use: core.UseInUse, Bytes: 140_000_000, Fate: core.FateAfterStop, Reason: "running in podman"},
		{ID: core.ContainerID(id("cc36")), Name: "old-job", Owners: []string{"podman"}, State: core.StateStopped, Use: core.UseIdle, Bytes: 66_000_000, Fate: core.FateNow, Reason: "nothing uses it"},
		{ID: core.ContainerID(id("cc37")), Name: "left-working-container", Owners: []string{"buildah"}, Use: core.UseIdle, Bytes: 205_000_000, Fate: core.FateNow, Reason: "nothing uses it"},
		{ID: core.ContainerID(id("cc38")), Owners: []string{"crio?"}, Use: core.UseUnknown, Bytes: 33_000_000, Fate: core.FateNever, Reason: "crio does not answer"},
		{ID: core.ContainerID(id("cc39")), Name: hostile, Owners: []string{hostile}, Use: core.UseIdle, Bytes: 52_000_000, Fate: core.FateNow, Reason: hostile,
			Because: []core.Blocker{{Detail: hostile, Advice: hostile, Evidence: []core.Evidence{{Source: hostile, Detail: hostile, Path: hostile}}}}},
	}
	for n := range more {
		image(fmt.Sprintf("b%05x", n), core.Fate(n%3), int64(1000+n*n%70_000_000), [][]string{nil, {"podman"}, {"crio"}, {"crio", "podman"}}[n%4], "nothing uses it", fmt.Sprintf("registry.example/team%d/app%d:1", n%40, n))
	}
	for _, l := range a.Layers {
		if l.ReadOnly || l.Bytes < 0 {
			continue
		}
		count(&a.Total, l.Bytes, l.Fate)
	}
	for _, c := range a.Containers {
		count(&a.Total, c.Bytes, c.Fate)
	}
	a.Total.Unmeasured = 1
	return a
}

func count(s *core.Sum, bytes int64, fate core.Fate) {
	s.Bytes += bytes
	switch fate {
	case core.FateNow:
		s.Now += bytes
	case core.FateAfterStop:
		s.AfterStop += bytes
	case core.FateNever:
		s.Never += bytes
	}
}

func write(t *testing.T, a *core.Account) string {
	t.Helper()
	var b bytes.Buffer
	disk := &core.Disk{Capacity: 50_000_000_000, Available: 21_000_000_000}
	if err := Write(&b, Page{Account: a, Disk: disk, Time: epoch, Program: "unmoor", Version: "test"}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// What engines say is in the page as data, and nowhere can it end that.
func TestHostileNames(t *testing.T) {
	a := sample(0)
	a.Store.GraphRoot = "/store/" + hostile
	text := write(t, a)
	if n := strings.Count(text, "<script"); n != 2 {
		t.Errorf("%d script elements", n)
	}
	if n := strings.Count(text, "</script"); n != 2 {
		t.Errorf("%d ends of script elements", n)
	}
	for _, bad := range []string{"<img", "\u202e", "\x00", "\u2028", "\xff"} {
		if strings.Contains(text, bad) {
			t.Errorf("%q is in the page", bad)
		}
	}
	_, rest, _ := strings.Cut(text, `<script type="application/json" id="data">`)
	raw, _, _ := strings.Cut(rest, "</script>")
	var d data
	if err := json.Unmarshal([]byte(raw), &d); err != nil {
		t.Fatal(err)
	}
	named := false
	for _, i := range d.Items {
		named = named || strings.HasPrefix(i.Name, `</script><script>document.title="fooled"</script>`)
	}
	if !named {
		t.Error("the name is not what it was")
	}
}

// Nothing in the page asks for anything.
func TestNothingFromElsewhere(t *testing.T) {
	text := write(t, sample(0))
	if found := regexp.MustCompile(`(?i)(https?:)?//[a-z]|\b(src|href|action|url)\s*[=(]|@import`).FindAllString(
		regexp.MustCompile(`(?s)<script type="application/json".*?</script>`).ReplaceAllString(text, ""), -1); found != nil {
		t.Errorf("the page names %q", found)
	}
	if !strings.Contains(text, "default-src &#39;none&#39;") {
		t.Error("no policy")
	}
}

// Each byte is in one rectangle.
func TestItemsAreTheTotal(t *testing.T) {
	a := sample(300)
	var sum core.Sum
	for _, i := range (Page{Account: a}).data().Items {
		count(&sum, i.Bytes, i.Fate)
	}
	sum.Unmeasured = a.Total.Unmeasured
	if sum != a.Total {
		t.Errorf("drawn are %+v, in the store %+v", sum, a.Total)
	}
}

func TestVisible(t *testing.T) {
	for text, want := range map[string]string{
		"localhost/ü:1": "localhost/ü:1", "a\u202eb": `a\u{202e}b`, "a\nb": `a\u{a}b`, "\x1b[2J": `\u{1b}[2J`, "\xff": "\uFFFD", "a b": "a b",
	} {
		if got := visible(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
