package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/client"
	"github.com/unmoor/unmoor/internal/service"
)

// The exit codes. Of several the highest counts.
const (
	exitDone    = 0
	exitUnknown = 1
	exitInUse   = 2
	exitOther   = 125
)

// refuse says on standard error what did not work, and remembers the exit code.
func (a *app) refuse(err error) {
	a.code = max(a.code, exitCode(err))
	fmt.Fprintf(a.err, "Error: %s\n", errorWords(err))
}

func exitCode(err error) int {
	var usage *usageError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &usage):
		return exitOther
	case errors.Is(err, core.ErrImageUnknown), errors.Is(err, core.ErrContainerUnknown):
		return exitUnknown
	case errors.Is(err, core.ErrStillInUse), errors.Is(err, core.ErrImageInUse):
		return exitInUse
	}
	return exitOther
}

// unknownError is a reference that fits nothing.
type unknownError struct {
	reference string
	sentinel  error // core.ErrImageUnknown or core.ErrContainerUnknown
	// program is the program with its global flags.
	program string
}

func (e *unknownError) Error() string {
	reference := plain(e.reference)
	if reference == "" {
		reference = `""`
	}
	list := "images"
	if errors.Is(e.sentinel, core.ErrContainerUnknown) {
		list = "ps"
	}
	return fmt.Sprintf("%v %s: %s %s lists what there is", e.sentinel, reference, e.program, list)
}
func (e *unknownError) Unwrap() error { return e.sentinel }

// errorWords puts an error into the user's words, with what to do where that is known.
func errorWords(err error) string {
	var ambiguous *core.AmbiguousError
	var denied *client.DeniedError
	var lost *client.LostError
	switch {
	case errors.As(err, &denied) && slices.Contains([]string{"Build", "RegisterPlugin", "UnregisterPlugin"}, denied.Method):
		return lines(err.Error()) + ": root may, and the user that it runs as"
	case errors.As(err, &denied):
		return lines(err.Error()) + ": [access] in its config.toml says who may"
	case errors.As(err, &lost):
		return lostWords(lost)
	case errors.As(err, &ambiguous):
		return fmt.Sprintf("%s could be any of %s: write more of the ID, or the full name",
			plain(ambiguous.Reference), plain(strings.Join(ambiguous.Candidates, ", ")))
	case errors.Is(err, context.Canceled):
		return "interrupted: " + lines(err.Error())
	case errors.Is(err, fs.ErrPermission) && !errors.Is(err, core.ErrStoreUnavailable): // which says what to do
		return lines(err.Error()) + ": run unmoor as root, or as the user that the store belongs to"
	}
	return lines(err.Error())
}

// lostWords says what is known of a removal or a repair whose daemon did not say what came of it.
func lostWords(lost *client.LostError) string {
	var open []string
	for _, a := range lost.Open {
		open = append(open, actionWords(a))
	}
	at := plain(lost.Address)
	if errors.Is(lost.Err, context.Canceled) {
		was := "what it is doing"
		if len(open) > 0 {
			was = strings.Join(open, "; ")
		}
		return fmt.Sprintf("interrupted: the daemon at %s ends it after this: %s; the same command goes on from there", at, was)
	}
	was := "what came of it is not known"
	if len(open) > 0 {
		was = "whether this is done is not known: " + strings.Join(open, "; ")
	}
	return fmt.Sprintf("the daemon at %s was lost in the middle of it (%s), and %s; the same command goes on from there", at, oneLine(lost.Err.Error()), was)
}

// lines keeps the lines of a joined error apart, and each of them printable.
func lines(s string) string {
	all := strings.Split(strings.TrimSpace(s), "\n")
	for i := range all {
		all[i] = plain(all[i])
	}
	return strings.Join(all, "\n       ")
}

// kept says that a removal did not happen, and why: one line for each thing in the way, and at the
// end what to do.
type kept struct {
	subject  subject
	blockers []core.Blocker
	// program is the program with its global flags, command the rest of the command line that would
	// lift what a force lifts, without the force.
	program string
	command string
	verbose bool
	// planned is whether nobody tried: a dry run.
	planned bool
}

// A list of more than mostIdle idle containers names the first few and counts the rest.
const (
	mostIdle = 20
	fewIdle  = 5
)

func (k kept) String() string {
	keeps := "kept"
	if k.planned {
		keeps = "would be kept"
	}
	blockers := slices.Clone(k.blockers)
	slices.SortStableFunc(blockers, func(a, b core.Blocker) int { return urgency(b) - urgency(a) })
	if len(blockers) == 1 {
		b := blockers[0]
		return fmt.Sprintf("%s %s: %s; %s\n", k.subject, keeps, obstacle(k.subject, b), remedy(b))
	}
	var s strings.Builder
	fmt.Fprintf(&s, "%s %s, and nothing of it changed: %d things are in the way\n", k.subject, keeps, len(blockers))
	idle := make(map[string]int)
	all, named, grouped := 0, 0, 0
	for _, b := range blockers {
		if b.Reason == core.ReasonHasContainer {
			all++
		}
	}
	for _, b := range blockers {
		if b.Reason == core.ReasonHasContainer && !k.verbose && all > mostIdle {
			if named++; named > fewIdle {
				idle[owners(b)]++
				grouped++
				continue
			}
		}
		fmt.Fprintf(&s, "  %s; %s\n", obstacle(k.subject, b), remedy(b))
	}
	if grouped > 0 {
		var of []string
		for _, b := range blockers {
			if n := idle[owners(b)]; n > 0 {
				of = append(of, fmt.Sprintf("%d of %s", n, owners(b)))
				delete(idle, owners(b))
			}
		}
		fmt.Fprintf(&s, "  and %s (%s), which --verbose names; --force=idle removes them\n",
			plural(grouped, "more idle container"), strings.Join(of, ", "))
	}
	s.WriteString("  " + k.advice() + "\n")
	return s.String()
}

// advice is the last line: the least force that lifts everything, or that none does.
func (k kept) advice() string {
	force, hard := service.LeastForce(k.blockers)
	switch {
	case hard == len(k.blockers):
		return "No force removes it: do for each what its line says, then try again."
	case hard > 0:
		return fmt.Sprintf("No force lifts %d of these: do what their lines say first. For the rest: %s", hard, k.with(force))
	}
	return fmt.Sprintf("To remove it with all of this: %s", k.with(force))
}

func (k kept) with(force core.Force) string {
	verb, rest, _ := strings.Cut(k.command, " ")
	return fmt.Sprintf("%s %s %s %s", k.program, verb, forceWord(force), rest)
}

func forceWord(force core.Force) string {
	if force == core.ForceStop {
		return "--force"
	}
	return "--force=" + force.String()
}

// urgency puts what needs most attention first.
func urgency(b core.Blocker) int {
	if b.LiftedBy == core.ForceNone {
		return int(core.ForceKill) + 1
	}
	return int(b.LiftedBy)
}

func owners(b core.Blocker) string {
	if len(b.Owners) == 0 {
		return "no engine"
	}
	return strings.Join(b.Owners, ", ")
}

// obstacle is one clause: what stands in the way, and who holds it.
func obstacle(of subject, b core.Blocker) string {
	if b.Container == "" {
		clause := plain(b.Detail)
		switch b.Reason {
		case core.ReasonUnknownUse:
			clause = "it may be mounted: " + clause
		case core.ReasonProtected:
			clause = "it is " + clause
		default:
		}
		if of.kind == "image" && string(b.Image) != "" && string(b.Image) != of.id {
			clause = imageSubject(b.Image, b.Name).String() + ": " + clause
		}
		return clause + holders(b)
	}
	who := containerSubject(b.Container, b.Name).String()
	if of.id == string(b.Container) {
		who = "it"
	}
	if b.Group != "" {
		who += " " + groupWords(b.Group, b.Owners...)
		if of.id == string(b.Container) {
			who = "it, " + groupWords(b.Group, b.Owners...) + ","
		}
	}
	detail := plain(b.Detail)
	switch b.Reason {
	case core.ReasonHasContainer:
		who += " is " + detail
		if len(b.Owners) > 0 {
			who += ", and " + plain(owners(b)) + "'s"
		}
		return who // its processes and mounts do not matter
	case core.ReasonInUse:
		if b.LiftedBy != core.ForceStop && !strings.HasPrefix(detail, "used by") {
			who += " is in use: " + detail
			break
		}
		who += " is " + detail
	case core.ReasonUnknownUse:
		who += " may be in use: " + detail
	case core.ReasonContested, core.ReasonProtected:
		who += " is " + detail
	case core.ReasonOwnerUnavailable, core.ReasonOwnerGarbage:
		who = keptBecause(who, detail)
	case core.ReasonChildImage, core.ReasonInManifest, core.ReasonSeveralNames, core.ReasonReadOnlyStore, core.ReasonImageMounted:
		who += ": " + detail
	default:
		who = keptBecause(who, detail)
	}
	return who + holders(b)
}

// keptBecause does not say once more that the container itself is kept.
func keptBecause(who, detail string) string {
	if who == "it" || strings.HasPrefix(who, "it, ") {
		return detail
	}
	return who + " is kept: " + detail
}

// holders says in brackets which processes hold it and how, or what else does.
func holders(b core.Blocker) string {
	processes := core.Processes(b.Evidence)
	const named = 5
	var all []string
	for i, p := range processes {
		if i == named && len(processes) > named+1 {
			all = append(all, fmt.Sprintf("%d more processes", len(processes)-named))
			break
		}
		text := processWords(p)
		if how := howUsed(b.Evidence, p); how != "" && b.LiftedBy != core.ForceStop && !strings.Contains(plain(b.Detail), how) {
			text += ", " + how
		}
		all = append(all, text)
	}
	if len(processes) == 0 {
		for _, e := range b.Evidence {
			if e.Path != "" && !strings.Contains(b.Detail, e.Path) && len(all) < named {
				all = append(all, plain(e.Path))
			}
		}
	}
	if len(all) == 0 {
		return ""
	}
	return " (" + strings.Join(all, "; ") + ")"
}

// processWords is "pid 22402, nginx -g daemon off;, unit web.service".
func processWords(p core.Process) string {
	text := fmt.Sprintf("pid %d", p.PID)
	if p.Command != "" {
		text += ", " + cut(plain(p.Command), 60)
	}
	if p.Unit != "" {
		text += ", unit " + plain(p.Unit)
	}
	return text
}

// howUsed is the kernel's first word on how a process uses the container.
func howUsed(evidence []core.Evidence, p core.Process) string {
	for _, e := range evidence {
		if e.Process != nil && e.Process.PID == p.PID && e.Source == core.SourceKernel && e.Detail != "" {
			return plain(e.Detail)
		}
	}
	return ""
}

// remedy says what to do about one blocker.
func remedy(b core.Blocker) string {
	switch b.LiftedBy {
	case core.ForceNone:
		if b.Advice == "" {
			return "no force lifts this"
		}
		return plain(b.Advice)
	case core.ForceIdle:
		switch b.Reason {
		case core.ReasonSeveralNames:
			return "remove it name by name, or all at once with --force=idle"
		case core.ReasonInManifest:
			return "remove the list first, or leave it incomplete with --force=idle"
		case core.ReasonImageMounted:
			return "--force=idle unmounts it"
		case core.ReasonHasContainer, core.ReasonInUse, core.ReasonUnknownUse, core.ReasonContested,
			core.ReasonOwnerUnavailable, core.ReasonOwnerGarbage, core.ReasonChildImage, core.ReasonReadOnlyStore, core.ReasonProtected:
		}
		return "remove it with --force=idle"
	case core.ForceStop:
		return "stop and remove it with --force"
	case core.ForceKill:
		if len(core.Processes(b.Evidence)) > 0 && b.Reason == core.ReasonInUse {
			return "kill what uses it and remove it with --force=kill"
		}
		return "remove it all the same with --force=kill"
	}
	return "no force lifts this"
}

// failed says what went wrong while a removal was carried out.
type failed struct {
	subject subject
	result  core.Result
	// program is the program with its global flags.
	program string
}

func (f failed) code() int {
	code := exitDone
	for _, failure := range f.result.Failed {
		c := exitCode(failure.Err)
		if c == exitUnknown { // of what the plan named: another reason than the user's spelling
			c = exitOther
		}
		code = max(code, c)
	}
	return code
}

func (f failed) String() string {
	var s strings.Builder
	state := "kept"
	if len(f.result.Done) > 0 {
		state = "removed only in part (what was done is listed)"
	}
	if len(f.result.Failed) == 1 {
		fmt.Fprintf(&s, "%s %s: %s\n", f.subject, state, f.words(f.result.Failed[0]))
		return s.String()
	}
	fmt.Fprintf(&s, "%s %s: %d actions went wrong\n", f.subject, state, len(f.result.Failed))
	for _, failure := range f.result.Failed {
		fmt.Fprintf(&s, "  %s\n", f.words(failure))
	}
	return s.String()
}

func (f failed) words(failure core.Failure) string {
	a, err := failure.Action, failure.Err
	var busy *core.BusyError
	switch {
	case errors.As(err, &busy):
		who := f.subject.String()
		if busy.Container != "" {
			who = containerSubject(busy.Container, a.Name).String()
		}
		use := "may be in use"
		if busy.Observation.Use == core.UseInUse {
			use = "is in use"
		}
		b := core.Blocker{Evidence: busy.Observation.Evidence, Detail: busy.Reason}
		return fmt.Sprintf("%s %s: %s%s; see %s why %s", who, use, plain(busy.Reason), holders(b), f.program, short(target(a)))
	case errors.Is(err, context.Canceled):
		return actionWords(a) + ": interrupted; the same command goes on from here"
	case errors.Is(err, core.ErrPlanStale), errors.Is(err, core.ErrStillInUse), errors.Is(err, core.ErrImageInUse):
		return fmt.Sprintf("%s: %s; try again", actionWords(a), oneLine(err.Error()))
	}
	return fmt.Sprintf("%s: %s", actionWords(a), oneLine(errorWords(err)))
}
