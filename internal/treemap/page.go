package treemap

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // for the parts of the page
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/unmoor/unmoor/core"
)

//go:embed page.html
var pageText string

//go:embed style.css
var style string

//go:embed script.js
var script string

var page = template.Must(template.New("page").Parse(pageText))

// Page is what is drawn.
type Page struct {
	Account *core.Account
	// Disk is the file system that the store lies on; nil where it is not known.
	Disk *core.Disk
	Time time.Time
	// Program and Version say who drew it.
	Program, Version string
}

// Write writes the page.
func Write(w io.Writer, p Page) error {
	data, err := json.Marshal(p.data()) // < > & are escaped, so that it cannot end the element that it is in
	if err != nil {
		return fmt.Errorf("draw the store: %w", err)
	}
	var b bytes.Buffer
	err = page.Execute(&b, map[string]any{
		"Policy": fmt.Sprintf("default-src 'none'; style-src '%s'; script-src '%s'; base-uri 'none'; form-action 'none'", digest(style), digest(script)),
		"Style":  template.CSS(style),
		"Script": template.JS(script),
		"Data":   template.JS(data),
		"Root":   visible(p.Account.Store.GraphRoot),
	})
	if err != nil {
		return fmt.Errorf("draw the store: %w", err)
	}
	_, err = w.Write(b.Bytes())
	return err
}

// digest is the source expression of an element's content.
func digest(content string) string {
	sum := sha256.Sum256([]byte(content))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// data is what the script reads.
type data struct {
	Root    string `json:"root"`
	Driver  string `json:"driver"`
	Time    string `json:"time"`
	Program string `json:"program"`
	// Disk is what is used of the file system, and how large it is.
	Disk     *core.Disk `json:"disk,omitempty"`
	ReadOnly int64      `json:"readOnly"`
	Total    core.Sum   `json:"total"`
	Items    []item     `json:"items"`
}

// item is a rectangle, and a row of the list.
type item struct {
	// Kind is image, shared, container or loose.
	Kind string `json:"kind"`
	ID   string `json:"id"`
	Name string `json:"name"`
	// Owner is whose containers stand on it, as the words of the page.
	Owner string `json:"owner"`
	Bytes int64  `json:"bytes"`
	// Unmeasured is whether there are bytes of unknown number besides.
	Unmeasured bool      `json:"unmeasured,omitempty"`
	Fate       core.Fate `json:"fate"`
	Reason     string    `json:"reason"`
	Facts      []fact    `json:"facts"`
	Because    []cause   `json:"because"`
}

type fact struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

type cause struct {
	Detail   string   `json:"detail"`
	Advice   string   `json:"advice,omitempty"`
	Evidence []string `json:"evidence"`
}

func (p Page) data() data {
	a := p.Account
	d := data{Root: visible(a.Store.GraphRoot), Driver: a.Store.GraphDriver, Time: p.Time.UTC().Format(time.RFC3339), Disk: p.Disk,
		Program: strings.TrimSpace(p.Program + " " + p.Version), ReadOnly: a.ReadOnlyBytes, Total: a.Total, Items: []item{}}
	names := make(map[core.ImageID]string)
	for _, i := range a.Images {
		names[i.ID] = i.ID.Short()
		if len(i.Names) > 0 {
			names[i.ID] = visible(i.Names[0])
		}
	}
	own := make(map[core.ImageID]int64)
	for _, l := range a.Layers {
		switch {
		case l.ReadOnly:
		case len(l.Images) == 1:
			own[l.Images[0]] += max(l.Bytes, 0)
		default:
			d.Items = append(d.Items, layer(l, names))
		}
	}
	for _, i := range a.Images {
		d.Items = append(d.Items, image(i, own[i.ID], names[i.ID]))
	}
	for _, c := range a.Containers {
		d.Items = append(d.Items, container(c, names))
	}
	return d
}

func image(i core.ImageAccount, own int64, name string) item {
	one := item{Kind: "image", ID: string(i.ID), Name: name, Owner: owner(i.Owners), Bytes: own, Unmeasured: i.Unmeasured > 0,
		Fate: i.Fate, Reason: visible(i.Reason), Because: causes(i.Because)}
	for _, n := range i.Names {
		one.Facts = append(one.Facts, fact{"Name", visible(n)})
	}
	one.Facts = append(one.Facts, fact{"Containers", fmt.Sprint(i.Containers)}, fact{"Bytes of its own", fmt.Sprint(i.UniqueBytes)},
		fact{"Bytes shared with other images", fmt.Sprint(i.SharedBytes)})
	if i.Unmeasured > 0 {
		one.Facts = append(one.Facts, fact{"Layers of unknown size", fmt.Sprint(i.Unmeasured)})
	}
	if i.ReadOnly {
		one.Facts = append(one.Facts, fact{"Where", "in an additional image store"})
	}
	return one
}

// shown is how many images of a shared layer are named.
const shown = 30

func layer(l core.LayerAccount, names map[core.ImageID]string) item {
	one := item{Kind: "loose", ID: string(l.ID), Name: "layer " + l.ID.Short(), Owner: owner(l.Owners), Bytes: max(l.Bytes, 0), Unmeasured: l.Bytes < 0,
		Fate: l.Fate, Reason: "it belongs to no image and no container: see unmoor doctor", Facts: []fact{}, Because: []cause{}}
	if len(l.Images) == 0 {
		return one
	}
	one.Kind, one.Reason = "shared", fmt.Sprintf("%d images share it", len(l.Images))
	for n, id := range l.Images {
		if n == shown {
			one.Facts = append(one.Facts, fact{"Image", fmt.Sprintf("and %d more", len(l.Images)-shown)})
			break
		}
		one.Facts = append(one.Facts, fact{"Image", names[id]})
	}
	return one
}

func container(c core.ContainerAccount, names map[core.ImageID]string) item {
	one := item{Kind: "container", ID: string(c.ID), Name: visible(c.Name), Owner: owner(c.Owners), Bytes: max(c.Bytes, 0), Unmeasured: c.Bytes < 0,
		Fate: c.Fate, Reason: visible(c.Reason), Because: causes(c.Because)}
	if one.Name == "" {
		one.Name = c.ID.Short()
	}
	add := func(key, value string) {
		if value != "" {
			one.Facts = append(one.Facts, fact{key, visible(value)})
		}
	}
	add("Pod or build", c.Group)
	add("State", string(c.State))
	add("Use", strings.ReplaceAll(c.Use.String(), "_", " "))
	image, known := names[c.Image]
	if !known {
		image = c.Image.Short()
	}
	add("Image", image)
	return one
}

func causes(blockers []core.Blocker) []cause {
	all := []cause{}
	for _, b := range blockers {
		c := cause{Detail: visible(b.Detail), Advice: visible(b.Advice), Evidence: []string{}}
		for _, e := range b.Evidence {
			c.Evidence = append(c.Evidence, visible(evidence(e)))
		}
		all = append(all, c)
	}
	return all
}

// evidence is one observation in a line.
func evidence(e core.Evidence) string {
	s := e.Source + ": " + e.Detail
	if p := e.Process; p != nil {
		s += fmt.Sprintf(", pid %d", p.PID)
		if p.Command != "" {
			s += " (" + p.Command + ")"
		}
		if p.Unit != "" {
			s += " of " + p.Unit
		}
	}
	if e.Path != "" {
		s += ", " + e.Path
	}
	if !e.Time.IsZero() {
		s += ", seen " + e.Time.UTC().Format(time.RFC3339)
	}
	return s
}

// owner is whose containers stand on something.
func owner(owners []string) string {
	var words []string
	for _, o := range owners {
		if o == "none" {
			o = "nobody"
		}
		words = append(words, visible(o))
	}
	if len(words) == 0 {
		return "no container"
	}
	return strings.Join(words, ", ")
}

// visible is a text with what cannot be seen, or turns the text around, written out.
func visible(s string) string {
	var b strings.Builder
	for _, r := range strings.ToValidUTF8(s, "\uFFFD") {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "\\u{%x}", r)
		}
	}
	return b.String()
}
