package core

import (
	"fmt"
	"strings"
)

// Judge makes the verdict on one container from what the engines and the kernel say, with one
// clause of reason. Each side can only add use: an engine's "idle" does not lift the kernel's "in
// use", nor the reverse, and what either could not find out is unknown.
func Judge(h Holding, o Observation) (Use, string) {
	if h.Kind == Owned && h.Owner() == "" {
		h = Holding{Reason: notUnderstood}
	}
	if h.Kind == Owned && claimsUse(h.Claim) {
		return UseInUse, fmt.Sprintf("%s in %s", stateWord(h.Claim), h.Owner())
	}
	if o.Use == UseInUse {
		return UseInUse, usedBy(o)
	}
	switch h.Kind {
	case Undetermined:
		return UseUnknown, h.Reason
	case Contested:
		return UseUnknown, "claimed by " + list(h.Owners)
	case Owned:
		if h.Claim.Use != UseIdle {
			return UseUnknown, unknownClaim(h)
		}
	case Unowned:
	default:
		return UseUnknown, notUnderstood
	}
	if o.Use != UseIdle {
		return UseUnknown, unseen(o)
	}
	return UseIdle, "nothing uses it"
}

const notUnderstood = "an answer about its owner that is not understood"

// claimsUse is whether an owner says, or its state implies, that the container is in use.
func claimsUse(c Claim) bool {
	return c.Use == UseInUse || (c.State.Live() && c.Use != UseUnknown)
}

func stateWord(c Claim) string {
	if c.State.Live() {
		return string(c.State)
	}
	return "in use"
}

func unknownClaim(h Holding) string {
	for _, e := range h.Claim.Evidence {
		if e.Detail != "" {
			return e.Detail
		}
	}
	return h.Owner() + " cannot tell whether it is in use"
}

func usedBy(o Observation) string {
	if n := len(Processes(o.Evidence)); n == 1 {
		return "used by a process"
	} else if n > 1 {
		return fmt.Sprintf("used by %d processes", n)
	}
	for _, e := range o.Evidence {
		if e.Detail != "" {
			return e.Detail
		}
	}
	return "its mount is held"
}

func unseen(o Observation) string {
	for _, e := range o.Evidence {
		if e.Detail != "" {
			return e.Detail
		}
	}
	return "the kernel could not be asked"
}

// obstacles lists everything that stands in the way of removing one container, whatever the force,
// each with the least force that lifts it. There is at least one, since even an idle container is
// in the way of its image.
func obstacles(c Container, h Holding, o Observation) []Blocker {
	if h.Kind == Owned && h.Owner() == "" {
		h = Holding{Owners: h.Owners, Reason: notUnderstood, Garbage: true}
	}
	with := func(reason Reason, lifted Force, detail, advice string, evidence ...[]Evidence) Blocker {
		b := about(c, h)
		b.Reason, b.LiftedBy, b.Detail, b.Advice = reason, lifted, detail, advice
		for _, e := range evidence {
			b.Evidence = append(b.Evidence, e...)
		}
		return b
	}
	switch h.Kind {
	case Owned:
	case Unowned:
		return []Blocker{unownedObstacle(o, with)}
	case Contested:
		return []Blocker{with(ReasonContested, ForceNone, "claimed by "+list(h.Owners),
			"find out which of them it belongs to, and remove it there", o.Evidence)}
	case Undetermined:
		fallthrough
	default:
		reason := ReasonOwnerUnavailable
		if h.Garbage {
			reason = ReasonOwnerGarbage
		}
		return []Blocker{with(reason, ForceNone, h.Reason, h.Advice, o.Evidence)}
	}

	if o.Use == UseUnknown {
		return []Blocker{with(ReasonUnknownUse, ForceNone, unseen(o), adviceFor(o), h.Claim.Evidence, o.Evidence)}
	}
	var found []Blocker
	switch {
	case claimsUse(h.Claim):
		found = append(found, with(ReasonInUse, ForceStop,
			fmt.Sprintf("%s in %s", stateWord(h.Claim), h.Owner()), "", h.Claim.Evidence, o.Evidence))
	case h.Claim.Use != UseIdle:
		found = append(found, with(ReasonUnknownUse, ForceKill, unknownClaim(h),
			"", h.Claim.Evidence))
	}
	// Where the owner says idle, the kernel's word stands even if it names nobody.
	if alien := aliens(c.ID, h, o); len(alien) > 0 || (o.Use == UseInUse && !claimsUse(h.Claim)) {
		found = append(found, inUseObstacle(alien, "of which "+h.Owner()+" knows nothing", with))
	}
	if len(found) == 0 {
		found = append(found, with(ReasonHasContainer, ForceIdle, "idle", "", h.Claim.Evidence, o.Evidence))
	}
	return found
}

// about is a blocker that says which container it is about, and no more.
func about(c Container, h Holding) Blocker {
	return Blocker{Container: c.ID, Name: displayName(c, h), Owners: h.Owners, Group: h.Claim.Group, State: h.Claim.State}
}

// adviceFor is what to do about use that could not be found out.
func adviceFor(o Observation) string {
	if o.Advice != "" {
		return o.Advice
	}
	return "run unmoor as root in the host's mount namespace, so that it can see every process and mount"
}

func unownedObstacle(o Observation, with func(Reason, Force, string, string, ...[]Evidence) Blocker) Blocker {
	switch o.Use {
	case UseIdle:
		return with(ReasonHasContainer, ForceIdle, "idle", "", o.Evidence)
	case UseInUse:
		return inUseObstacle(o.Evidence, "that no engine knows", with)
	case UseUnknown:
	}
	return with(ReasonUnknownUse, ForceNone, unseen(o), adviceFor(o), o.Evidence)
}

// inUseObstacle is lifted by kill where there are processes to end. What holds a layer without a
// process, a bind-mounted namespace say, has to be taken away by hand.
func inUseObstacle(evidence []Evidence, whose string, with func(Reason, Force, string, string, ...[]Evidence) Blocker) Blocker {
	switch n := len(Processes(evidence)); n {
	case 0:
		return with(ReasonInUse, ForceNone, usedBy(Observation{Evidence: evidence}),
			"unmount or close what holds it, then try again", evidence)
	case 1:
		return with(ReasonInUse, ForceKill, "used by a process "+whose, "", evidence)
	default:
		return with(ReasonInUse, ForceKill, fmt.Sprintf("used by %d processes %s", n, whose), "", evidence)
	}
}

// aliens is the kernel's evidence of use that stopping an owned container would not end. Where the
// owner says that the container is idle, all of it is. Where it runs, two kinds of process that the
// owner does not name are: those in the mount namespace of pid 1, for an engine's containers have
// namespaces of their own, and those outside of the container's control group.
func aliens(id ContainerID, h Holding, o Observation) []Evidence {
	if o.Use != UseInUse {
		return nil
	}
	if !claimsUse(h.Claim) {
		return o.Evidence
	}
	named := make(map[int]bool)
	for _, p := range Processes(h.Claim.Evidence) {
		named[p.PID] = true
	}
	group := ""
	for _, p := range Processes(o.Evidence) {
		if named[p.PID] && group == "" {
			group = groupOf(id, p.Cgroup)
		}
	}
	var alien []Evidence
	for _, e := range o.Evidence {
		if e.Process == nil || named[e.Process.PID] {
			continue
		}
		outside := group != "" && e.Process.Cgroup != "" && groupOf(id, e.Process.Cgroup) != group
		if e.Process.OnHost || outside {
			alien = append(alien, e)
		}
	}
	return alien
}

// groupOf is the control group of a container that a path is in: up to the component that names the
// container, as podman's libpod-ID and CRI-O's crio-ID.scope do, since what runs inside may make
// groups of its own. It is empty where no component does.
func groupOf(id ContainerID, cgroup string) string {
	at := strings.Index(cgroup, string(id))
	if at < 0 {
		return ""
	}
	if end := strings.IndexByte(cgroup[at:], '/'); end >= 0 {
		return cgroup[:at+end]
	}
	return cgroup
}

// displayName is what people call the container: the owner's name for it, else the record's first.
func displayName(c Container, h Holding) string {
	if h.Claim.DisplayName != "" {
		return h.Claim.DisplayName
	}
	if len(c.Names) > 0 {
		return c.Names[0]
	}
	return ""
}

func list(words []string) string {
	switch len(words) {
	case 0:
		return "nobody"
	case 1:
		return words[0]
	}
	s := words[0]
	for _, w := range words[1 : len(words)-1] {
		s += ", " + w
	}
	return s + " and " + words[len(words)-1]
}
