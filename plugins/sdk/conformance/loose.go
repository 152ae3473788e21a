package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
)

// loose is an object of an answer, read without any demand: what is wrong with its form is the business of
// one rule, and not of all.
type loose map[string]any

func looseOf(text json.RawMessage) loose {
	var l loose
	if json.Unmarshal(text, &l) != nil {
		return nil
	}
	return l
}

// text is empty where there is none.
func (l loose) text(key string) string {
	s, _ := l[key].(string)
	return s
}

func (l loose) flag(key string) bool {
	b, _ := l[key].(bool)
	return b
}

func (l loose) texts(key string) []string {
	var all []string
	items, _ := l[key].([]any)
	for _, i := range items {
		if s, ok := i.(string); ok {
			all = append(all, s)
		}
	}
	return all
}

func (l loose) numbers(key string) []int64 {
	var all []int64
	items, _ := l[key].([]any)
	for _, i := range items {
		if n, ok := i.(float64); ok {
			all = append(all, int64(n))
		}
	}
	return all
}

func (l loose) objects(key string) []loose {
	var all []loose
	items, _ := l[key].([]any)
	for _, i := range items {
		if o, ok := i.(map[string]any); ok {
			all = append(all, o)
		}
	}
	return all
}

// only is what of the object counts for a comparison.
func (l loose) only(keys ...string) string {
	part := make(map[string]any)
	for _, k := range keys {
		if v, ok := l[k]; ok && v != nil {
			part[k] = v
		}
	}
	text, err := json.Marshal(part)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// once compares the ids of an answer with those that were asked about.
func once(asked []string, answer []loose, what string) error {
	count := make(map[string]int)
	for _, a := range answer {
		count[a.text("id")]++
	}
	var missing, doubled, foreign []string
	for _, id := range asked {
		switch n := count[id]; {
		case n == 0:
			missing = append(missing, id)
		case n > 1:
			doubled = append(doubled, id)
		}
	}
	for id := range count {
		if !slices.Contains(asked, id) {
			foreign = append(foreign, id)
		}
	}
	var found []string
	for _, f := range []struct {
		ids  []string
		says string
	}{{missing, "none about"}, {doubled, "several about"}, {foreign, "one that was not asked for, about"}} {
		if len(f.ids) > 0 {
			slices.Sort(f.ids)
			more := ""
			if len(f.ids) > 1 {
				more = fmt.Sprintf(" and %d more", len(f.ids)-1)
			}
			found = append(found, fmt.Sprintf("%s %.64q%s", f.says, f.ids[0], more))
		}
	}
	if len(found) == 0 {
		return nil
	}
	return fmt.Errorf("asked about %d it gave %d %s: %s", len(asked), len(answer), what, strings.Join(found, "; "))
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
