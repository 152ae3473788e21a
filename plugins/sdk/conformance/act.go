package conformance

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/protocol"
	"github.com/unmoor/unmoor/internal/wire"
	iounmoorplugin "github.com/unmoor/unmoor/varlink/plugin"
)

// verb is Stop or Remove.
type verb struct {
	name, capability, method string
	in                       func(store, []handle, time.Duration) any
}

var (
	stop = verb{"Stop", "stop", protocol.MethodStop, func(s store, handles []handle, grace time.Duration) any {
		return protocol.StopIn{ProtocolVersion: protocol.Version, Store: s, Handles: handles, GracePeriodMs: grace.Milliseconds()}
	}}
	remove = verb{"Remove", "remove", protocol.MethodRemove, func(s store, handles []handle, _ time.Duration) any {
		return protocol.RemoveIn{ProtocolVersion: protocol.Version, Store: s, Handles: handles}
	}}
)

// actRules are about containers that nobody has.
func actRules(v verb) []rule {
	id := func(name string) string { return v.capability + "-" + name }
	check := func(f func(*probe, verb) error) func(*probe) error {
		return func(p *probe) error {
			if err := p.offers(v.capability); err != nil {
				return err
			}
			return f(p, v)
		}
	}
	answers := []string{id("answers")}
	return []rule{
		{id("answers"), v.name + " is answered", []string{"describe-answers"}, check(actAnswers)},
		{id("form"), "An outcome of " + v.name + " has every field, each in its form", answers, check(actForm)},
		{id("once"), v.name + " has exactly one outcome a handle", answers, check(actOnce)},
		{id("nothing"), v.name + " of nothing is answered with no outcomes", answers, check(actNothing)},
		{id("gone"), v.name + " of a container that is gone is a success, or not_owner", answers, check(actGone)},
		{id("more"), "With more, the replies of " + v.name + " continue until the last, and have one outcome a handle together", answers, check(actMore)},
		{id("alive"), "With more, " + v.name + " gives a sign of life every 5 s", answers, check(actAlive)},
	}
}

// act makes a call and returns the outcomes.
func (p *probe) act(v verb, handles []handle) (reply, []loose, error) {
	r, err := p.call(v.method, v.in(p.wireStore(p.store), handles, 0), p.options.Deadline)
	if err == nil {
		err = unavailable(r)
	}
	return r, looseOf(r.Parameters).objects("outcomes"), err
}

func actAnswers(p *probe, v verb) error {
	_, _, err := p.act(v, madeUpHandles(p.store, 1))
	return err
}

func actForm(p *probe, v verb) error {
	r, _, err := p.act(v, madeUpHandles(p.store, 3))
	if err != nil {
		return err
	}
	return outcomesForm(r)
}

func outcomesForm(r reply) error {
	var out protocol.StopOut // which Remove's is like
	if err := wire.Decode(r.Parameters, &out); err != nil {
		return fmt.Errorf("%w: %s", err, r)
	}
	for _, o := range out.Outcomes {
		if _, err := protocol.ToOutcome(o); err != nil {
			return fmt.Errorf("%w: %s", err, r)
		}
	}
	return nil
}

func actOnce(p *probe, v verb) error {
	handles := madeUpHandles(p.store, 5)
	_, outcomes, err := p.act(v, handles)
	if err != nil {
		return err
	}
	return once(handleIDs(handles), outcomes, "outcomes")
}

func handleIDs(handles []handle) []string {
	all := make([]string, len(handles))
	for i, h := range handles {
		all[i] = h.Container.Id
	}
	return all
}

func actNothing(p *probe, v verb) error {
	r, _, err := p.act(v, none[handle]())
	if err != nil {
		return err
	}
	if outcomes, ok := looseOf(r.Parameters)["outcomes"].([]any); !ok || len(outcomes) > 0 {
		return fmt.Errorf("it answers with %s", r)
	}
	return nil
}

// actGone takes not_owner, since a plugin can tell by the handle that the claim was not its own.
func actGone(p *probe, v verb) error {
	r, outcomes, err := p.act(v, madeUpHandles(p.store, 2))
	if err != nil {
		return err
	}
	for _, o := range outcomes {
		switch problem := o.text("problem"); {
		case o.flag("storageRemoved"):
			return fmt.Errorf("it says that it removed what was not there: %s", r)
		case problem == "" || problem == string(protocol.ProblemNotOwner):
		case problem == string(protocol.ProblemFailed) && !p.ready():
			return skipf("the engine cannot answer: %.300s", o.text("message"))
		default:
			return fmt.Errorf("it answers with %s", r)
		}
	}
	return nil
}

func actMore(p *probe, v verb) error {
	handles := madeUpHandles(p.store, 5)
	all, _, err := p.stream(v.method, v.in(p.wireStore(p.store), handles, 0), p.options.Deadline)
	if err != nil {
		return fmt.Errorf("after %d replies: %w", len(all), err)
	}
	var outcomes []loose
	for _, r := range all {
		if err := unavailable(r); err != nil {
			return err
		}
		outcomes = append(outcomes, looseOf(r.Parameters).objects("outcomes")...)
	}
	if len(all) == 1 { // as without more
		return nil
	}
	return once(handleIDs(handles), outcomes, "outcomes")
}

func actAlive(p *probe, v verb) error {
	_, gap, err := p.stream(v.method, v.in(p.wireStore(p.store), madeUpHandles(p.store, 2), 0), p.options.Silence)
	if errors.Is(err, errSilent) {
		return fmt.Errorf("nothing came for %s", gap.Round(100*time.Millisecond))
	}
	return nil // another end is another rule's business
}

// containerRules are about the container that may be stopped and removed.
func containerRules() []rule {
	check := func(f func(*probe, core.Container) error) func(*probe) error {
		return func(p *probe) error {
			if p.options.Container == nil {
				return skipf("no container was named")
			}
			return f(p, *p.options.Container)
		}
	}
	mine := []string{"container-mine"}
	return []rule{
		{"container-mine", "The container is mine, in a report of the right form", []string{"claim-answers"}, check(containerMine)},
		{"container-hint", "The container fits one of the hints", mine, check(containerHint)},
		{"container-store", "The same record in another store is not mine", mine, check(containerStore)},
		{"container-in-use", "Remove refuses the container with still_in_use while it runs", mine, check(containerInUse)},
		{"container-revision", "Stop and Remove refuse a revision that was never given for the container, where one is", mine, check(containerRevision)},
		{"container-stop", "Stop stops the container, with signs of life", mine, check(containerStop)},
		{"container-stop-again", "Stop of the container that is stopped is a success", []string{"container-stop"}, check(containerStopAgain)},
		{"container-remove", "Remove removes the container by the claim from before the Stop, and its storage where it says so", []string{"container-stop"}, check(containerRemove)},
		{"container-gone", "Stop and Remove of the container that is gone are successes", []string{"container-remove"}, check(containerGone)},
	}
}

// report is what the plugin says of one container.
func (p *probe) report(s core.StoreInfo, c core.Container) (loose, reply, error) {
	r, err := p.call(protocol.MethodClaim, p.claimIn(s, []container{sent(c, protocol.FromContainer)}), p.options.Deadline)
	if err != nil {
		return nil, r, err
	}
	reports, err := reportsOf(r)
	if err != nil {
		return nil, r, err
	}
	for _, report := range reports {
		if report.text("id") == string(c.ID) {
			return report, r, nil
		}
	}
	return nil, r, fmt.Errorf("it says nothing of the container: %s", r)
}

func containerMine(p *probe, c core.Container) error {
	report, r, err := p.report(p.store, c)
	if err != nil {
		return err
	}
	if report.text("ownership") != "mine" {
		return fmt.Errorf("it says %s", r)
	}
	return reportsForm(r)
}

func containerHint(p *probe, c core.Container) error {
	hints := p.said.objects("claimHints")
	if len(hints) == 0 {
		return skipf("it has no hints: while it is down every container is kept")
	}
	for _, h := range hints {
		if fits(h, c) {
			return nil
		}
	}
	return fmt.Errorf("it claims container %s, which fits none of its %d hints", c.ID.Short(), len(hints))
}

// containerStore moves the record's paths along with the store.
func containerStore(p *probe, c core.Container) error {
	for _, path := range []*string{&c.Directory, &c.Layer.Directory, &c.Layer.MountPoint, &c.Layer.UpperDir} {
		*path = moved(*path, p.store.GraphRoot, p.other.GraphRoot)
	}
	c.RunDirectory = moved(c.RunDirectory, p.store.RunRoot, p.other.RunRoot)
	report, r, err := p.report(p.other, c)
	if err != nil {
		return err
	}
	if report.text("ownership") == "mine" {
		return fmt.Errorf("in the store %s it says %s", p.other.GraphRoot, r)
	}
	return nil
}

func moved(path, from, to string) string {
	if rest, below := strings.CutPrefix(path, from); below {
		return to + rest
	}
	return path
}

// handle is the container with what the plugin says of it now.
func (p *probe) handle(c core.Container) (handle, error) {
	report, r, err := p.report(p.store, c)
	if err != nil {
		return handle{}, err
	}
	var out protocol.ClaimOut
	if err := wire.Decode(r.Parameters, &out); err != nil {
		return handle{}, err
	}
	for _, w := range out.Reports {
		if w.Id == report.text("id") {
			return handle{Container: sent(c, protocol.FromContainer), Report: w}, nil
		}
	}
	return handle{}, fmt.Errorf("it says nothing of the container: %s", r)
}

// one has a verb done to the container, and returns its outcome.
func (p *probe) one(v verb, h handle) (loose, error) {
	// The engine's own time comes to the grace period.
	all, gap, err := p.stream(v.method, v.in(p.wireStore(p.store), []handle{h}, p.options.Grace), p.options.Silence)
	if err != nil {
		return nil, fmt.Errorf("%s, after %d replies and %s: %w", v.name, len(all), gap.Round(100*time.Millisecond), err)
	}
	var outcomes []loose
	for _, r := range all {
		if err := unavailable(r); err != nil {
			return nil, err
		}
		if err := outcomesForm(r); err != nil {
			return nil, err
		}
		outcomes = append(outcomes, looseOf(r.Parameters).objects("outcomes")...)
	}
	if err := once([]string{h.Container.Id}, outcomes, "outcomes"); err != nil {
		return nil, fmt.Errorf("%s: %w", v.name, err)
	}
	return outcomes[0], nil
}

func (p *probe) offersBoth() error {
	if err := p.offers("stop"); err != nil {
		return err
	}
	return p.offers("remove")
}

func containerRevision(p *probe, c core.Container) error {
	h, err := p.handle(c)
	if err != nil {
		return err
	}
	if h.Report.Revision == nil {
		return skipf("it gives no revision")
	}
	before, _, err := p.report(p.store, c)
	if err != nil {
		return err
	}
	if !live(before) {
		return skipf("the container is %s", before.text("state"))
	}
	wrong := "of-another-time"
	h.Report.Revision = &wrong
	for _, v := range []verb{remove, stop} {
		if p.offers(v.capability) != nil {
			continue
		}
		o, err := p.one(v, h)
		if err != nil {
			return err
		}
		switch problem := iounmoorplugin.Problem(o.text("problem")); {
		case problem == protocol.ProblemRevisionMismatch, problem == protocol.ProblemNotOwner:
		case problem == protocol.ProblemStillInUse && v.name == remove.name: // it runs, whatever the revision
		default:
			return fmt.Errorf("%s with the revision %q: %s", v.name, wrong, o.only("problem", "message", "storageRemoved"))
		}
	}
	after, _, err := p.report(p.store, c)
	if err != nil {
		return err
	}
	if was, is := before.only("ownership", "state", "use"), after.only("ownership", "state", "use"); was != is {
		return fmt.Errorf("it refused, and yet the container is another one: %s, before %s", is, was)
	}
	return nil
}

// live is whether the container has something to stop, by the plugin's word.
func live(report loose) bool { return core.State(report.text("state")).Live() }

func containerInUse(p *probe, c core.Container) error {
	if err := p.offers("remove"); err != nil {
		return err
	}
	report, _, err := p.report(p.store, c)
	if err != nil {
		return err
	}
	if !live(report) {
		return skipf("the container is %s", report.text("state"))
	}
	h, err := p.handle(c)
	if err != nil {
		return err
	}
	o, err := p.one(remove, h)
	if err != nil {
		return err
	}
	if o.text("problem") != string(protocol.ProblemStillInUse) {
		return fmt.Errorf("Remove: %s", o.only("problem", "message", "storageRemoved", "along"))
	}
	if report, r, err := p.report(p.store, c); err != nil || report.text("ownership") != "mine" || !live(report) {
		return fmt.Errorf("it refused, and yet the container is gone or stopped: %s (%v)", r, err)
	}
	return nil
}

func containerStop(p *probe, c core.Container) error {
	if err := p.offersBoth(); err != nil {
		return err
	}
	h, err := p.handle(c)
	if err != nil {
		return err
	}
	p.claimed = h
	o, err := p.one(stop, h)
	if err != nil {
		return err
	}
	if o["problem"] != nil {
		return fmt.Errorf("Stop: %s", o.only("problem", "message"))
	}
	report, r, err := p.report(p.store, c)
	if err != nil {
		return err
	}
	if report.text("ownership") == "mine" && live(report) {
		return fmt.Errorf("Stop was a success, and yet it says %s", r)
	}
	return nil
}

func containerStopAgain(p *probe, c core.Container) error {
	h, err := p.handle(c)
	if err != nil {
		return err
	}
	o, err := p.one(stop, h)
	if err != nil {
		return err
	}
	if o["problem"] != nil {
		return fmt.Errorf("Stop: %s", o.only("problem", "message"))
	}
	return nil
}

func containerRemove(p *probe, c core.Container) error {
	o, err := p.one(remove, p.claimed)
	if err != nil {
		return err
	}
	switch {
	case o["problem"] != nil:
		return fmt.Errorf("Remove: %s", o.only("problem", "message"))
	case o.flag("storageRemoved") && exists(c.Layer.Directory):
		return fmt.Errorf("it says that it removed the storage, and yet %s is there", c.Layer.Directory)
	}
	report, r, err := p.report(p.store, c)
	if err != nil {
		return err
	}
	// What is left to Unmoor may still look like the engine's, but not run.
	if o.flag("storageRemoved") && report.text("ownership") == "mine" || live(report) {
		return fmt.Errorf("Remove was a success, and yet it says %s", r)
	}
	return nil
}

func containerGone(p *probe, _ core.Container) error {
	for _, v := range []verb{stop, remove} {
		o, err := p.one(v, p.claimed)
		if err != nil {
			return err
		}
		if o["problem"] != nil {
			return fmt.Errorf("%s: %s", v.name, o.only("problem", "message"))
		}
	}
	return nil
}
