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

// contested says who claims the container. Two plugins of one engine do by mistake.
func contested(claimed []vote) core.Holding {
	h := core.Holding{Kind: core.Contested, Owners: names(claimed), Reason: "claimed by " + list(names(claimed)),
		Advice: "find out which of them it belongs to, and remove it there"}
	for i, v := range claimed {
		for _, w := range claimed[:i] {
			if strings.EqualFold(v.engine, w.engine) {
				h.Reason += fmt.Sprintf(", and %s and %s both speak for %s", w.entry.Name, v.entry.Name, v.engine)
				h.Advice = fmt.Sprintf("leave one of the plugins %s and %s: set [plugin.%s] enabled = false in config.toml", w.entry.Name, v.entry.Name, v.entry.Name)
				return h
			}
		}
	}
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
	return fmt.Sprintf("%s, %s, %s", e.Name, may, f.clause())
}

// adviser is met by an error of a plugin that knows better than to start its engine.
type adviser interface{ Advice() string }

func advise(v vote) string {
	if v.fault == nil {
		return "try again later"
	}
	return repair(v.entry, v.fault, asNobodys)
}

// asNobodys is what the containers of a plugin are that is to be ignored.
const asNobodys = "to treat its containers as nobody's"

// repair is what an operator can do about a failure; ignoring is what for, where it is to be ignored.
func repair(e Entry, f *fault, ignoring string) string {
	first := remedy(e, f)
	switch {
	case f.kind == faultCanceled:
		return first
	case e.Required:
		return fmt.Sprintf("%s, or set %s to go on without it", first, e.setting("required = false"))
	case f.kind == faultUnreachable && e.kept:
		return first // and that says already how to go on without it
	}
	return fmt.Sprintf("%s, or set %s %s", first, e.setting(`when_unavailable = "ignore"`), ignoring)
}

// remedy is what mends it.
func remedy(e Entry, f *fault) string {
	var own adviser
	switch {
	case f.kind == faultCanceled:
		return "try again"
	case errors.As(f.err, &own):
		return oneLine(own.Advice())
	case f.kind == faultSilent:
		return "see why " + e.Name + " hangs"
	case f.kind == faultBroken, f.kind == faultGarbage:
		return "report this as a fault of the plugin " + e.Name
	case f.kind == faultIncompatible:
		return "replace the plugin " + e.Name + " by one that fits"
	case f.kind == faultUnreachable && e.kept && e.source == SourceConfigured:
		return fmt.Sprintf("put [plugin.%s] back into config.toml, or where it is gone for good: unmoor plugins unregister %s", e.Name, e.Name)
	case f.kind == faultUnreachable && e.kept:
		return fmt.Sprintf("start the plugin %s, or where it is gone for good: unmoor plugins unregister %s", e.Name, e.Name)
	case f.kind == faultUnreachable:
		return "start the plugin " + e.Name
	case absent(f.err):
		return "install or start " + e.Name
	}
	return "start " + e.Name
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
