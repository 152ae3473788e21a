package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// KeyError is a key that is not known or whose value makes no sense.
type KeyError struct {
	// File and Line are where it stands; both are zero where a check outside a file found it.
	File string
	Line int
	Key  string
	// Problem is one clause.
	Problem string
}

func (e *KeyError) Error() string {
	s := e.Key + ": " + e.Problem
	switch {
	case e.File == "":
	case e.Line == 0:
		s = e.File + ": " + s
	default:
		s = fmt.Sprintf("%s:%d: %s", e.File, e.Line, s)
	}
	return s
}

// Load reads a file over the defaults. The error joins a *KeyError for each key that is wrong; a
// missing file is fs.ErrNotExist.
func Load(path string) (Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("read the configuration: %w", err)
	}
	return Parse(path, string(text))
}

// Parse is Load of a text that came from the file path.
func Parse(path, text string) (Config, error) {
	c := Default()
	f := file{path: path}
	var err error
	f.meta, err = toml.Decode(text, &f.root)
	if err != nil {
		return Config{}, f.syntax(err)
	}
	c.External = f.external(c.settings())
	f.read(c.settings())
	for _, e := range c.check() {
		f.report(e.Key, e.Problem)
	}
	if len(f.problems) > 0 {
		return Config{}, errors.Join(f.problems...)
	}
	return c, nil
}

// Validate checks what no single key shows. The error joins *KeyError.
func (c *Config) Validate() error {
	var problems []error
	for _, e := range c.check() {
		problems = append(problems, e)
	}
	return errors.Join(problems...)
}

func (c *Config) check() []*KeyError {
	var found []*KeyError
	add := func(key, problem string) { found = append(found, &KeyError{Key: key, Problem: problem}) }
	for key, path := range map[string]string{
		"store.root": c.Store.Root, "store.runroot": c.Store.RunRoot, "service.socket": c.Service.Socket, "audit.file": c.Audit.File,
		"plugins.directory": c.Plugins.Directory, "plugins.hints": c.Plugins.Hints,
	} {
		if path != "" && !filepath.IsAbs(path) {
			add(key, fmt.Sprintf("wants an absolute path, not %q", path))
		}
	}
	for key, patterns := range map[string][]string{"protect.images": c.Protect.Images, "protect.containers": c.Protect.Containers} {
		if slices.ContainsFunc(patterns, blank) {
			add(key, "wants patterns that are not empty, such as \"docker.io/library/*\"")
		}
	}
	for _, label := range c.Protect.Labels {
		if key, _, _ := strings.Cut(label, "="); blank(key) {
			add("protect.labels", fmt.Sprintf("wants KEY or KEY=VALUE, not %q", label))
			break
		}
	}
	if c.Prune.Low >= c.Prune.High {
		add("prune.low", "wants less than high: it is where a prune stops that begins there")
	}
	if c.Prune.Interval < Duration(time.Second) {
		add("prune.interval", `wants no less than "1s"; enabled = false is for no prune at all`)
	}
	for key, entries := range map[string][]string{"access.read": c.Access.Read, "access.write": c.Access.Write} {
		for _, entry := range entries {
			if problem := checkEntry(entry); problem != "" {
				add(key, problem)
				break
			}
		}
	}
	if slices.Contains(c.Access.Write, "*") {
		add("access.write", `"*" would let anybody remove anything: name users or groups`)
	}
	if c.Audit.MaxSize < 64<<10 {
		add("audit.max_size", `wants no less than "64KiB"`)
	}
	if c.Audit.Keep < 0 || c.Audit.Keep > 1000 {
		add("audit.keep", "wants a number from 0 to 1000")
	}
	plugins := map[string]Plugin{"podman": c.Podman.Plugin, "buildah": c.Buildah.Plugin, "crio": c.CRIO.Plugin}
	for _, e := range c.External {
		plugins[e.Name] = e.Plugin
		for key, problem := range e.check() {
			add("plugin."+e.Name+key, problem)
		}
	}
	for name, p := range plugins {
		if p.ClaimTimeout <= 0 {
			add("plugin."+name+".claim_timeout", "wants more than 0: without an answer nothing could be removed")
		}
		if p.Required && !p.Enabled {
			add("plugin."+name+".required", "is true, but the plugin is not enabled")
		}
		if p.Required && p.WhenUnavailable == Ignore {
			add("plugin."+name+".required", `is true, and when_unavailable is "ignore": choose one`)
		}
	}
	for name, command := range map[string][]string{"podman": c.Podman.Command, "buildah": c.Buildah.Command} {
		if len(command) == 0 || command[0] == "" || slices.ContainsFunc(command, hasNUL) {
			add("plugin."+name+".command", fmt.Sprintf("wants a program, such as [%q]", name))
		}
	}
	if a := c.Podman.Address; a != "" && !strings.HasPrefix(a, "unix:/") {
		add("plugin.podman.address", fmt.Sprintf("wants a socket such as \"unix:///run/podman/podman.sock\", not %q", a))
	}
	if a := c.CRIO.Address; !strings.HasPrefix(a, "unix:/") {
		add("plugin.crio.address", fmt.Sprintf("wants a socket such as \"unix:///run/crio/crio.sock\", not %q", a))
	}
	for key, address := range map[string]string{"podman": c.Podman.Socket, "buildah": c.Buildah.Socket, "crio": c.CRIO.Socket} {
		if problem := checkSocket(key, address); address != "" && problem != "" {
			add("plugin."+key+".socket", problem)
		}
	}
	slices.SortFunc(found, func(a, b *KeyError) int { return strings.Compare(a.Key, b.Key) })
	return found
}

// check says what is wrong with a plugin that is not built in: for the end of each key, a clause.
func (e External) check() map[string]string {
	wrong := make(map[string]string)
	if e.Address == "" && len(e.Command) == 0 && e.Enabled {
		wrong[""] = noSuchPlugin
	}
	if e.Address != "" && len(e.Command) > 0 {
		wrong[".command"] = "is set, and so is address: choose one"
	}
	if len(e.Command) > 0 && (e.Command[0] == "" || slices.ContainsFunc(e.Command, hasNUL)) {
		wrong[".command"] = fmt.Sprintf("wants a program, such as [\"/usr/libexec/unmoor-%s\"]", e.Name)
	}
	if problem := checkSocket(e.Name, e.Address); e.Address != "" && problem != "" {
		wrong[".address"] = problem
	}
	return wrong
}

const noSuchPlugin = "no such plugin; there are buildah, crio, podman; one that is not built in wants address or command"

// checkSocket says in a clause what is wrong with the address of a plugin's socket.
func checkSocket(name, address string) string {
	path, ok := strings.CutPrefix(address, "unix:")
	if !ok || !filepath.IsAbs(path) || strings.Contains(path, ";") || hasNUL(path) {
		return fmt.Sprintf("wants a socket such as \"unix:/run/unmoor/plugins/%s.sock\", not %q", name, address)
	}
	return ""
}

func hasNUL(s string) bool { return strings.ContainsRune(s, 0) }

// checkEntry says in a clause what is wrong with an entry of [access].
func checkEntry(entry string) string {
	if entry == "*" {
		return ""
	}
	name := strings.TrimPrefix(entry, "@")
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f }) ||
		strings.ContainsAny(name, ":*") || strings.HasPrefix(name, "@") || strings.HasPrefix(name, "-") {
		return fmt.Sprintf(`wants users such as "alice" or "1000", or groups such as "@ops", not %q`, entry)
	}
	if strings.Trim(name, "0123456789") == "" {
		// The last one stands for "none" (setresuid(2)).
		if id, err := strconv.ParseUint(name, 10, 32); err != nil || id == 1<<32-1 {
			return fmt.Sprintf("there is no ID %s", name)
		}
	}
	return ""
}

func blank(s string) bool { return strings.TrimSpace(s) == "" }

// file is one file that is being read.
type file struct {
	path     string
	meta     toml.MetaData
	root     map[string]toml.Primitive
	problems []error
}

func (f *file) syntax(err error) error {
	var p toml.ParseError
	if errors.As(err, &p) {
		return fmt.Errorf("%s:%d: %s", f.path, p.Position.Line, p.Message)
	}
	return fmt.Errorf("%s: %w", f.path, err)
}

// external lists the plugins that the file has a section of and that are not among the settings. A name
// is that of a socket and the owner of containers; kernel and none mean something else there.
func (f *file) external(settings []setting) []External {
	built := make(map[string]bool)
	for _, s := range settings {
		built[parent(s.key)] = true
	}
	var found []External
	for _, k := range f.meta.Keys() {
		if len(k) < 2 || k[0] != "plugin" || built[k[:2].String()] {
			continue
		}
		// A section that is written as plugin.NAME.key has no key, and so no type, of its own.
		if kind := f.meta.Type(k[:2]...); kind != "Hash" && kind != "" ||
			!pluginName.MatchString(k[1]) || k[1] == "kernel" || k[1] == "none" {
			continue
		}
		found = append(found, External{Name: k[1], Plugin: defaultPlugin()})
	}
	slices.SortFunc(found, func(a, b External) int { return strings.Compare(a.Name, b.Name) })
	return slices.CompactFunc(found, func(a, b External) bool { return a.Name == b.Name })
}

var pluginName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// read sets the settings that the file has. Keys count exactly as they are written in config.toml:
// the library would take [Store] for [store].
func (f *file) read(settings []setting) {
	known := make(map[string]setting)
	tables := make(map[string]bool)
	for _, s := range settings {
		known[s.key] = s
		for t := s.key; strings.Contains(t, "."); {
			t = t[:strings.LastIndexByte(t, '.')]
			tables[t] = true
		}
	}
	wrong := make(map[string]bool)
	for _, k := range f.meta.Keys() {
		key := k.String()
		if wrong[parent(key)] {
			wrong[key] = true
			continue
		}
		if s, ok := known[key]; ok {
			if value, ok := f.value(k); ok {
				f.set(s, value)
			}
			continue
		}
		kind := f.meta.Type(k...)
		if tables[key] && kind == "Hash" {
			continue
		}
		wrong[key] = true
		switch {
		case tables[key]:
			f.report(key, "is a section: write ["+key+"]")
		case len(k) == 2 && k[0] == "plugin" && kind == "Hash":
			f.report(key, "is no name of a plugin: lower case letters, digits and -, and neither kernel nor none")
		case len(k) == 2 && k[0] == "plugin":
			f.report(key, noSuchPlugin)
		default:
			f.report(key, "no such key")
		}
	}
}

func (f *file) set(s setting, value toml.Primitive) {
	err := f.meta.PrimitiveDecode(value, s.at)
	var p toml.ParseError
	switch {
	case err == nil:
	case errors.As(err, &p) && !strings.HasPrefix(p.Message, "toml: "):
		f.report(s.key, p.Message) // what UnmarshalText said
	default:
		f.report(s.key, s.wants())
	}
}

// value finds the value of a key.
func (f *file) value(k toml.Key) (toml.Primitive, bool) {
	at := f.root
	for _, part := range k[:len(k)-1] {
		var next map[string]toml.Primitive
		if f.meta.PrimitiveDecode(at[part], &next) != nil {
			return toml.Primitive{}, false // it is a list of tables, which is reported as such
		}
		at = next
	}
	value, ok := at[k[len(k)-1]]
	return value, ok
}

func (f *file) report(key, problem string) {
	f.problems = append(f.problems, &KeyError{File: f.path, Line: f.line(key), Key: key, Problem: problem})
}

// line is where a key, or the first one below it, stands, 0 where the file lacks it. The library tells positions in its errors
// alone, so the key is decoded into what takes no value.
func (f *file) line(key string) int {
	for _, k := range f.meta.Keys() {
		if k.String() != key && !strings.HasPrefix(k.String(), key+".") {
			continue
		}
		value, ok := f.value(k)
		if !ok {
			return 0
		}
		var p toml.ParseError
		if errors.As(f.meta.PrimitiveDecode(value, new(nothing)), &p) {
			return p.Position.Line
		}
	}
	return 0
}

type nothing struct{}

func (*nothing) UnmarshalTOML(any) error { return errors.New("no value is taken") }

func parent(key string) string {
	if i := strings.LastIndexByte(key, '.'); i >= 0 {
		return key[:i]
	}
	return ""
}
