package conformance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/protocol"
)

// Options say what is checked. The zero value is safe on any machine.
type Options struct {
	// Store is the one that the plugin is asked about; one that is made up where it has no graph root.
	Store core.StoreInfo
	// Container is a container of the plugin's engine, in Store, that may be stopped and removed. The
	// rules about a real container are skipped without it.
	Container *core.Container
	// Grace is what that container has to end; 10 s if 0.
	Grace time.Duration
	// Deadline is how long one answer may take; 30 s if 0, which is Unmoor's own.
	Deadline time.Duration
	// Silence is how long a Stop or a Remove may go without a reply; the protocol's 5 s and one to spare
	// if 0. Watch is how long a Describe that stays open is looked at; 1 s if 0.
	Silence time.Duration
	Watch   time.Duration
}

// Status is what became of a rule.
type Status string

// The fates of a rule.
const (
	Holds   Status = "holds"
	Fails   Status = "fails"
	Skipped Status = "skipped"
)

// Result is what became of one rule. Evidence is what was seen where it fails, and why it was not judged
// where it is skipped.
type Result struct {
	Rule     string `json:"rule"`
	Text     string `json:"text"`
	Status   Status `json:"status"`
	Evidence string `json:"evidence,omitempty"`
}

// Report is what became of all rules.
type Report struct {
	// Name, Engine and Capabilities are the plugin's own words, as far as they can be read.
	Name         string   `json:"name"`
	Engine       string   `json:"engine"`
	Capabilities []string `json:"capabilities"`
	Results      []Result `json:"results"`
}

// Count is how many rules met a fate.
func (r Report) Count(s Status) int {
	n := 0
	for _, result := range r.Results {
		if result.Status == s {
			n++
		}
	}
	return n
}

// Run judges a target by every rule. The error says that nothing could be judged: nobody answers anything.
func Run(ctx context.Context, t Target, o Options) (report Report, err error) {
	o.Grace, o.Deadline = cmp.Or(o.Grace, 10*time.Second), cmp.Or(o.Deadline, 30*time.Second)
	o.Silence, o.Watch = cmp.Or(o.Silence, 6*time.Second), cmp.Or(o.Watch, time.Second)
	p := &probe{ctx: ctx, target: t, options: o, store: o.Store}
	directory, err := os.MkdirTemp("", "unmoor-check-")
	if err != nil {
		return Report{}, fmt.Errorf("make a store to ask about: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(directory)) }()
	p.other = madeUpStore(filepath.Join(directory, "other"))
	if p.store.GraphRoot == "" {
		p.store = madeUpStore(filepath.Join(directory, "store"))
	}
	if err := p.lives(); err != nil {
		return Report{}, fmt.Errorf("the plugin answers nothing: %w", err)
	}
	p.describe()
	report = Report{Name: p.said.text("name"), Engine: p.said.text("engine"), Capabilities: append([]string{}, p.said.texts("capabilities")...)}
	earlier := make(map[string]Result)
	for _, r := range rules() {
		if err := ctx.Err(); err != nil {
			return Report{}, err
		}
		result := p.judge(r, earlier)
		earlier[r.id] = result
		report.Results = append(report.Results, result)
	}
	return report, ctx.Err()
}

func madeUpStore(directory string) core.StoreInfo {
	return core.StoreInfo{GraphRoot: filepath.Join(directory, "root"), RunRoot: filepath.Join(directory, "run"), GraphDriver: "vfs"}
}

// rule is one sentence about a plugin.
type rule struct {
	id, text string
	// needs are rules that come before it and have to hold.
	needs []string
	// check is nil where it holds, a *skip where it cannot be judged, and else the evidence.
	check func(*probe) error
}

type skip struct{ why string }

func (s *skip) Error() string { return s.why }

func skipf(format string, args ...any) error { return &skip{fmt.Sprintf(format, args...)} }

func rules() []rule {
	return slices.Concat(describeRules(), serviceRules(), claimRules(), actRules(stop), actRules(remove),
		pinRules(), listRules(), buildRules(), hostileRules(), containerRules())
}

// judge is what becomes of one rule. Whatever it is about, the plugin has to live afterwards.
func (p *probe) judge(r rule, earlier map[string]Result) Result {
	result := Result{Rule: r.id, Text: r.text, Status: Skipped}
	for _, n := range r.needs {
		switch needed := earlier[n]; needed.Status {
		case Fails:
			result.Evidence = n + " fails"
			return result
		case Skipped:
			result.Evidence = needed.Evidence
			return result
		case Holds:
		}
	}
	if p.gone != nil {
		result.Evidence = "the plugin is gone: " + p.gone.Error()
		return result
	}
	err := r.check(p)
	if dead := p.lives(); dead != nil {
		if err == nil || isSkip(err) {
			err = fmt.Errorf("the plugin does not answer any more: %w", dead)
		}
		p.gone = p.target.Revive(p.ctx)
	}
	var s *skip
	switch {
	case err == nil:
		result.Status = Holds
	case errors.As(err, &s):
		result.Evidence = s.why
	default:
		result.Status, result.Evidence = Fails, err.Error()
	}
	return result
}

// probe is one run of the check.
type probe struct {
	ctx     context.Context
	target  Target
	options Options
	// store is the one that is asked about, other one that no engine uses.
	store, other core.StoreInfo
	// said is the answer of Describe, as far as there is any.
	said loose
	gone error
	// claimed is the handle of the container from before it was stopped.
	claimed handle
}

// describe asks the plugin who it is, for the rules that depend on that.
func (p *probe) describe() {
	if r, err := p.call(protocol.MethodDescribe, nil, p.options.Deadline); err == nil && r.Error == "" {
		p.said = looseOf(r.Parameters)
	}
}

// offers is a *skip where the plugin does not offer a capability.
func (p *probe) offers(capability string) error {
	if slices.Contains(p.said.texts("capabilities"), capability) {
		return nil
	}
	return skipf("it does not offer %s", capability)
}

// livesOn looks for a while, since a plugin may die of something after it has answered others.
func (p *probe) livesOn() error {
	for end := time.Now().Add(p.options.Watch); time.Now().Before(end); time.Sleep(p.options.Watch / 10) {
		if err := p.lives(); err != nil {
			return err
		}
	}
	return nil
}

// lives is nil where the plugin answers anything at all.
func (p *probe) lives() error {
	var err error
	for _, method := range []string{varlinkService + ".GetInfo", protocol.MethodDescribe} {
		if _, err = p.call(method, nil, p.options.Deadline); err == nil {
			return nil
		}
	}
	return err
}
