package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"text/template"

	"github.com/spf13/cobra"
)

// format is what --format says: json, a Go template, or "table" and a template.
type format struct {
	json     bool
	table    bool
	template *template.Template
}

// parseFormat reads a format whose rows are like the sample, and tries it on that: a misspelt field
// must be found before anything is removed. It returns nil for an empty text.
func parseFormat(text string, sample any) (*format, error) {
	f := &format{}
	switch rest, table := strings.CutPrefix(text, "table "); {
	case text == "":
		return nil, nil
	case strings.EqualFold(text, "json"):
		f.json = true
		return f, nil
	case table:
		f.table, text = true, strings.TrimLeft(rest, " ")
	}
	// Shells leave \t and \n as they are; Podman takes them for a tab and a line.
	text = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text)
	t, err := template.New("format").Funcs(template.FuncMap{
		"json":  toJSON,
		"join":  func(list []string, by string) string { return strings.Join(list, by) },
		"lower": strings.ToLower,
		"upper": strings.ToUpper,
	}).Parse(text)
	if err != nil {
		return nil, usagef("--format: %w", err)
	}
	if err := t.Execute(io.Discard, sample); err != nil {
		return nil, usagef("--format: %w; there are %s", err, strings.Join(fields(sample), ", "))
	}
	f.template = t
	return f, nil
}

func toJSON(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), err
}

// fields lists what a template can name of a row.
func fields(row any) []string {
	var names []string
	t := reflect.TypeOf(row)
	for i := range t.NumMethod() {
		if name := t.Method(i).Name; name != "MarshalJSON" && name != "String" {
			names = append(names, "."+name)
		}
	}
	if t.Kind() == reflect.Struct {
		for i := range t.NumField() {
			if t.Field(i).IsExported() {
				names = append(names, "."+t.Field(i).Name)
			}
		}
	}
	slices.Sort(names)
	return names
}

// writeRows writes one row after the other, under headings where there are any.
func writeRows[T any](w io.Writer, f *format, rows []T, headings map[string]string) error {
	to := w
	var tabs *tabwriter.Writer
	if f.table {
		tabs = tabwriter.NewWriter(w, 12, 2, 2, ' ', 0)
		to = tabs
		if headings != nil {
			// A template that does more than name fields has no headings.
			var line strings.Builder
			if f.template.Execute(&line, headings) == nil {
				fmt.Fprintln(to, line.String())
			}
		}
	}
	for _, row := range rows {
		if err := f.template.Execute(to, row); err != nil {
			return fmt.Errorf("--format: %w", err)
		}
		fmt.Fprintln(to)
	}
	if tabs != nil {
		return tabs.Flush()
	}
	return nil
}

func (a *app) writeJSON(v any) error {
	e := json.NewEncoder(a.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// listFlags are what the lists share.
type listFlags struct {
	format    string
	noHeading bool
	noTrunc   bool
	quiet     bool
	filters   []string
}

func (f *listFlags) register(cmd *cobra.Command, filters string) {
	flags := cmd.Flags()
	letter := "n"
	if cmd.Name() == "ps" {
		letter = "" // -n is --last in podman ps
	}
	f.registerFormat(cmd, letter)
	flags.Lookup("quiet").Usage = "print IDs alone"
	flags.BoolVar(&f.noTrunc, "no-trunc", false, "print IDs and names in full")
	flags.StringArrayVarP(&f.filters, "filter", "f", nil, "list only what fits `key=value`: "+filters+"; may be given several times")
}

// registerFormat registers what a list has that takes no filter. letter is short for --noheading.
func (f *listFlags) registerFormat(cmd *cobra.Command, letter string) {
	flags := cmd.Flags()
	flags.StringVar(&f.format, "format", "", "print json, or each row by a Go `template`, as a table where it begins with \"table \"")
	flags.BoolVarP(&f.noHeading, "noheading", letter, false, "print no headings")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "print names alone")
}

// list writes a list in the format that was asked for. view is what JSON shows.
func list[T any](a *app, f *format, flags *listFlags, rows []T, view any, headings map[string]string) error {
	if f.json {
		return a.writeJSON(view)
	}
	if flags.noHeading {
		headings = nil
	}
	return writeRows(a.out, f, rows, headings)
}

// filter is one --filter. A row fits where for every key one of its values fits.
type filter map[string][]string

// filterKey is a key that a filter may have.
type filterKey struct {
	name string
	// check says which values are right, where not all are. It may be nil.
	check func(value string) error
}

func parseFilters(texts []string, known ...filterKey) (filter, error) {
	f := make(filter)
	for _, text := range texts {
		key, value, ok := strings.Cut(text, "=")
		i := slices.IndexFunc(known, func(k filterKey) bool { return k.name == key })
		if !ok || i < 0 {
			var names []string
			for _, k := range known {
				names = append(names, k.name)
			}
			return nil, usagef("--filter %s: wants KEY=VALUE with one of the keys %s", text, strings.Join(names, ", "))
		}
		if check := known[i].check; check != nil {
			if err := check(value); err != nil {
				return nil, usagef("--filter %s: %w", text, err)
			}
		}
		f[key] = append(f[key], value)
	}
	return f, nil
}

func oneOf(words ...string) func(string) error {
	return func(value string) error {
		if !slices.Contains(words, value) {
			return fmt.Errorf("is one of %s", strings.Join(words, ", "))
		}
		return nil
	}
}

func truth(value string) error {
	if _, err := strconv.ParseBool(value); err != nil {
		return errors.New("is true or false")
	}
	return nil
}

func expression(value string) error {
	if _, err := regexp.Compile(value); err != nil {
		return fmt.Errorf("is a regular expression: %w", err)
	}
	return nil
}

func pattern(value string) error {
	if _, err := path.Match(value, ""); err != nil {
		return errors.New("is a pattern with *, ? and [a-z]")
	}
	return nil
}

// fits is whether the values of a key, where the filter names it, hold for a row.
func (f filter) fits(key string, fits func(value string) bool) bool {
	values, ok := f[key]
	return !ok || slices.ContainsFunc(values, fits)
}
