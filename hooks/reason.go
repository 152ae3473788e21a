package hooks

import (
	"errors"
	"fmt"
	"strings"

	"github.com/unmoor/unmoor/core"
)

// undetermined says who may own the container, what happened to it, and what an operator can do.
func undetermined(c core.Container, doubts, claimed []vote) core.Holding {
	h := core.Holding{Kind: core.Undetermined, Owners: names(doubts)}
	var reasons, advice []string
	for _, v := range doubts {
		reasons = append(reasons, reason(v, c))
		advice = append(advice, advise(v))
		if v.fault != nil && v.fault.kind == faultGarbage {
			h.Garbage = true
		}
	}
	if len(claimed) > 0 {
		reasons = append(reasons, claimed[0].entry.Name+" claims it")
	}
	h.Reason = strings.Join(reasons, "; ")
	h.Advice = strings.Join(advice, "; ")
	return h
}

func reason(v vote, c core.Container) string {
	name := v.entry.Name
	if v.fault == nil {
		for _, e := range v.claims[c.ID].Evidence {
			if e.Detail != "" {
				return fmt.Sprintf("%s cannot tell whether it is its own: %s", name, e.Detail)
			}
		}
		return name + " cannot tell at present whether it is its own"
	}
	return failure(v.entry, v.fault, "which may own it")
}

// failure says what happened to a plugin that may matter.
func failure(e Entry, f *fault, may string) string {
	if e.Required {
		may = "which is required to answer"
	}
	who := e.Name + ", " + may + ","
	switch f.kind {
	case faultSilent:
		return fmt.Sprintf("%s did not answer within %s", who, e.ClaimTimeout)
	case faultGarbage:
		return fmt.Sprintf("%s answered nonsense: %s", who, f.err)
	case faultPanic:
		return fmt.Sprintf("%s broke: %s", who, f.err)
	case faultCanceled:
		return fmt.Sprintf("%s was not waited for: %s", who, f.err)
	case faultError:
	}
	return fmt.Sprintf("%s cannot answer: %s", who, oneLine(f.err.Error()))
}

// adviser is met by an error of a plugin that knows better than to start its engine.
type adviser interface{ Advice() string }

func advise(v vote) string {
	if v.fault == nil {
		return "try again later"
	}
	return repair(v.entry, v.fault, "to treat its containers as nobody's")
}

// repair is what an operator can do about a failure; ignoring is what for, where it is to be ignored.
func repair(e Entry, f *fault, ignoring string) string {
	name := e.Name
	var first string
	switch f.kind {
	case faultCanceled:
		return "try again"
	case faultSilent:
		first = "see why " + name + " hangs"
	case faultPanic, faultGarbage:
		first = "report this as a fault of the plugin " + name
	case faultError:
		first = "start " + name
		var own adviser
		switch {
		case errors.As(f.err, &own):
			first = oneLine(own.Advice())
		case absent(f.err):
			first = "install or start " + name
		}
	}
	if e.Required {
		return fmt.Sprintf(`%s, or set [plugin.%s] required = false in config.toml to go on without it`, first, name)
	}
	return fmt.Sprintf(`%s, or set [plugin.%s] when_unavailable = "ignore" in config.toml %s`, first, name, ignoring)
}

// ignoredNote says whose silence was overruled by configuration.
func ignoredNote(ignored []vote) string {
	if len(ignored) == 0 {
		return ""
	}
	return fmt.Sprintf(`%s may own it and did not answer, but is set to when_unavailable = "ignore"`, list(names(ignored)))
}

func list(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}

// oneLine keeps an engine's error readable in a list.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	const most = 500
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
