package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/client"
	"github.com/unmoor/unmoor/internal/service"
)

// pruneFlags are prune's.
type pruneFlags struct {
	request              service.PruneRequest
	unusedFor            ageFlag
	minAge, abandonedAge ageFlag
	high, low            percentFlag
	force, dryRun        bool
	quiet, verbose       bool
	format               string
}

// ageFlag is a length of time in which days and weeks count, too.
type ageFlag time.Duration

func (a *ageFlag) String() string { return time.Duration(*a).String() }
func (a *ageFlag) Type() string   { return "age" }
func (a *ageFlag) Set(text string) error {
	d, err := service.ParseAge(text)
	*a = ageFlag(d)
	return err
}

// percentFlag is a part of a hundred.
type percentFlag int

func (p *percentFlag) String() string { return strconv.Itoa(int(*p)) + "%" }
func (p *percentFlag) Type() string   { return "percent" }
func (p *percentFlag) Set(text string) error {
	n, err := strconv.ParseUint(strings.TrimSuffix(text, "%"), 10, 7)
	if err != nil || n > 100 {
		return errors.New("wants a part of a hundred, such as 85%")
	}
	*p = percentFlag(n)
	return nil
}

func (a *app) pruneCommand() *cobra.Command {
	var f pruneFlags
	cmd := &cobra.Command{
		Use:   "prune [flags]",
		Short: "Remove what nobody uses, by rules",
		Long: `Remove what nobody uses: images without a name on which nothing is built, and containers that no engine
owns and nothing uses. The plan is shown first, with what it gives free, and carried out where the answer
is yes.

  --all              images with names, too, that no container needs
  --stopped          containers that their engine has stopped or not started; a pod goes whole or not at all
  --build-leftovers  Buildah's containers that nothing works in
  --when-full        images alone, and only where the file system is fuller than [prune] high: first the one
                     whose last use is the longest ago, until it is no fuller than [prune] low

Nothing is stopped. What is in use stays, and what may be: whose engine does not answer, of which the kernel
cannot tell, or, with --unused-for and --when-full, of which it is not known when it was used last (the
service keeps a journal of that, or a timer that prunes every few minutes). So does what is protected,
pinned or mounted, an image that a container, another image or a manifest list needs, and what came less
than [prune] min_age ago, or, of containers of nobody and of builds, abandoned_age.

Filters (all must fit; of several references or owners one):
  until=24h|7d|2026-05-04    created before that
  label=KEY[=VALUE]          has the label; * in KEY stands for anything
  label!=KEY[=VALUE]         has it not, as far as that is known
  reference=PATTERN          an image of that name, with or without registry and tag, as in podman images
  dangling=true|false        an image without, or with --all with, a name
  owner=NAME|none            a container of that engine, or of nobody; no image then

Exit codes: 0 done, or nothing to do; 2 something came into use meanwhile, or with --when-full not as much
could go as was wanted; 125 anything else.`,
		Example: `  unmoor prune
  unmoor prune --all --filter until=30d --keep 3 --dry-run
  unmoor prune --force --all --unused-for 7d --filter 'label!=keep'
  unmoor prune --force --when-full`,
		Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.prune(cmd, &f) },
	}
	r, flags := &f.request, cmd.Flags()
	flags.BoolVarP(&r.All, "all", "a", false, "images with names, too")
	flags.BoolVar(&r.Stopped, "stopped", false, "idle containers of engines, too")
	flags.BoolVar(&r.BuildLeftovers, "build-leftovers", false, "idle containers that builds left, too")
	flags.BoolVar(&r.WhenFull, "when-full", false, "images alone, and only where the file system is too full")
	flags.StringArrayVar(&r.Filters, "filter", nil, "only what fits `key=value`: until, label, label!, reference, dangling, owner; may be given several times")
	flags.IntVar(&r.Keep, "keep", 0, "keep the `n` newest images of each repository")
	flags.Var(&f.unusedFor, "unused-for", "only images that were not used for this `age`, such as 7d")
	flags.Var(&f.minAge, "min-age", "only what came longer ago than this `age` (default from the configuration: 2m)")
	flags.Var(&f.abandonedAge, "abandoned-age", "only containers of nobody and of builds that are older than this `age` (default from the configuration: 24h)")
	flags.Var(&f.high, "high", "too full is from this `percent` on (default from the configuration: 85%)")
	flags.Var(&f.low, "low", "full enough is from this `percent` down (default from the configuration: 80%)")
	for _, name := range []string{"unused-for", "min-age", "abandoned-age", "high", "low"} {
		flags.Lookup(name).DefValue = ""
	}
	flags.BoolVarP(&f.force, "force", "f", false, "do not ask")
	flags.BoolVar(&f.dryRun, "dry-run", false, "change nothing: print what would go and what stays")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "print the IDs of what was removed alone")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "name all that stays, however long the list")
	flags.StringVar(&f.format, "format", "", "print json, or each result by a Go `template`")
	flags.StringVar(&r.Revision, "plan", "", "carry out the plan with this `revision` (--dry-run --format json prints it), or nothing where it does not hold any more")
	return cmd
}

// check finds what is wrong with the flags alone.
func (f *pruneFlags) check(cmd *cobra.Command) (*format, error) {
	r, given := &f.request, cmd.Flags().Changed
	r.UnusedFor = time.Duration(f.unusedFor)
	if given("min-age") {
		r.MinAge = (*time.Duration)(&f.minAge)
	}
	if given("abandoned-age") {
		r.AbandonedAge = (*time.Duration)(&f.abandonedAge)
	}
	if given("high") != given("low") {
		return nil, usagef("--high and --low belong together: give both")
	}
	if given("high") {
		if !r.WhenFull {
			return nil, usagef("--high and --low go with --when-full")
		}
		r.Thresholds = &core.Thresholds{High: int(f.high), Low: int(f.low)}
	}
	if r.Revision != "" && !isRevision(r.Revision) {
		return nil, usagef("--plan wants the revision of a plan: 64 hexadecimal digits, as --dry-run --format json prints")
	}
	if err := r.Check(); err != nil {
		return nil, usagef("%w", err)
	}
	return parseFormat(f.format, resultView{})
}

func (a *app) prune(cmd *cobra.Command, f *pruneFlags) error {
	format, err := f.check(cmd)
	if err != nil {
		return err
	}
	asks := !f.dryRun && !f.force && f.request.Revision == ""
	if asks && !isTerminal(a.in) {
		return usagef("there is no terminal to ask at: give --force, or --dry-run to see what would go")
	}
	for _, filter := range f.request.Filters {
		a.labels = a.labels || strings.HasPrefix(filter, "label")
	}
	return a.ask(cmd, func(ctx context.Context, b backend) error {
		request := f.request
		if f.dryRun || asks {
			p, err := b.PlanPrune(ctx, request)
			if err != nil {
				return a.unpruned(err, f, format)
			}
			if f.dryRun || len(p.Plan.Removals) == 0 {
				return a.reportPrune(p, f, format, true)
			}
			if !a.agreed(p, f) {
				return nil
			}
			request.Revision = p.Plan.Revision
		}
		progress := newProgress(a.err, 0)
		p, err := b.Prune(ctx, request, progress.tell)
		progress.finish()
		if err != nil {
			return a.unpruned(err, f, format)
		}
		return a.reportPrune(p, f, format, false)
	})
}

// unpruned is that nothing was pruned, or that it is not known what was.
func (a *app) unpruned(err error, f *pruneFlags, format *format) error {
	if errors.Is(err, core.ErrPlanStale) {
		nothing := &core.Plan{Force: core.ForceIdle, Removals: []core.Removal{}}
		return a.reportPrune(&service.Pruned{Outcome: &service.Outcome{Plan: nothing, Problems: []error{err}}}, f, format, f.dryRun)
	}
	if lost, ok := errors.AsType[*client.LostError](err); ok && format == nil {
		a.reportLost(lost, service.Targets{AllImages: true}, &removalFlags{quiet: f.quiet})
	}
	return err
}

// isTerminal is whether somebody sits there.
func isTerminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// agreed shows the plan, and asks.
func (a *app) agreed(p *service.Pruned, f *pruneFlags) bool {
	const most = 20 // lines that are looked at
	lines := pruneLines(p)
	for i, line := range lines {
		if i == most && len(lines) > most+1 && !f.verbose {
			fmt.Fprintf(a.err, "  and %d more (--dry-run names them)\n", len(lines)-most)
			break
		}
		fmt.Fprintf(a.err, "  %s\n", line)
	}
	fmt.Fprintf(a.err, "This %s. Go on? [y/N] ", frees(p))
	answer, err := bufio.NewReader(a.in).ReadString('\n')
	if err != nil && answer == "" {
		fmt.Fprintln(a.err)
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return true
	}
	return false
}

// pruneLines are what a plan does, but for names and mounts that go with it.
func pruneLines(p *service.Pruned) []string {
	var lines []string
	for _, r := range p.Plan.Removals {
		for _, action := range r.Actions {
			switch action.Verb {
			case core.VerbUntag, core.VerbUnmount:
			case core.VerbStop, core.VerbKill, core.VerbRemove, core.VerbDeleteContainer, core.VerbDeleteImage:
				lines = append(lines, actionWords(action))
			}
		}
	}
	return lines
}

func frees(p *service.Pruned) string {
	s := "would free about " + humanSize(p.Bytes)
	if p.AtLeast {
		s += ", or more"
	}
	return s
}

// reportPrune says what became of a prune, or what its plan is.
func (a *app) reportPrune(p *service.Pruned, f *pruneFlags, format *format, planned bool) error {
	r := &removal{outcome: p.Outcome, program: a.program,
		flags: &removalFlags{force: forceFlag{core.ForceIdle}, quiet: f.quiet, verbose: f.verbose, dryRun: planned, revision: f.request.Revision}}
	doc := document{DryRun: planned, Force: core.ForceIdle, Plan: p.Plan, Prune: newPruneView(p)}
	human := format == nil
	a.reportProblems(r, &doc)
	a.reportCompleted(r, &doc, human)
	switch {
	case planned && human && f.quiet:
		for i, of := range p.Plan.Removals {
			a.reportIDs(r.subject(i), of.Actions)
		}
	case planned && human:
		for _, line := range pruneLines(p) {
			fmt.Fprintln(a.out, line)
		}
		if len(p.Plan.Removals) > 0 {
			fmt.Fprintf(a.out, "This %s.\n", frees(p))
		}
	case !planned:
		a.reportResults(r, human)
	}
	for i, result := range p.Results {
		doc.add(p.References[i], result)
	}
	if human && !f.quiet {
		a.reportStaying(p, f)
	}
	a.reportFullness(p, f, human)
	return a.reportDocument(&doc, format)
}

// reportStaying says what was meant, and what keeps it: what is kept by the same thing in one line.
func (a *app) reportStaying(p *service.Pruned, f *pruneFlags) {
	type group struct {
		subjects []subject
		why      string
	}
	var groups []*group
	byWhy := make(map[string]*group)
	for _, b := range p.Kept {
		s := imageSubject(b.Image, b.Name)
		if b.Container != "" {
			s = containerSubject(b.Container, b.Name)
		}
		why := plain(b.Detail)
		if b.Advice != "" {
			why += "; " + plain(b.Advice)
		}
		key := s.kind + why
		if byWhy[key] == nil || f.verbose {
			byWhy[key] = &group{why: why}
			groups = append(groups, byWhy[key])
		}
		byWhy[key].subjects = append(byWhy[key].subjects, s)
	}
	for _, g := range groups {
		who := g.subjects[0].String()
		if n := len(g.subjects); n > 1 {
			who = fmt.Sprintf("%s, %s among them", plural(n, g.subjects[0].kind), strings.TrimPrefix(who, g.subjects[0].kind+" "))
		}
		fmt.Fprintf(a.out, "Kept: %s: %s\n", who, g.why)
	}
	if len(p.Plan.Removals) == 0 && len(p.Kept) == 0 && len(p.Completed) == 0 && len(p.Problems) == 0 && (!f.request.WhenFull || p.Wanted > 0) {
		fmt.Fprintln(a.out, "There is nothing to prune.")
	}
}

// reportFullness says how full the file system is, where that was the question.
func (a *app) reportFullness(p *service.Pruned, f *pruneFlags, human bool) {
	if !f.request.WhenFull || p.Disk == nil {
		return
	}
	now := *p.Disk
	if p.After != nil {
		now = *p.After
	}
	say := func(format string, args ...any) {
		if human && !f.quiet {
			fmt.Fprintf(a.out, format, args...)
		}
	}
	if p.Wanted == 0 {
		say("The file system is %d%% full; it is pruned from %d%% on.\n", now.Used(), p.Thresholds.High)
		return
	}
	enough := p.After != nil && now.Used() <= p.Thresholds.Low
	if p.After == nil { // a plan
		enough = p.Bytes >= p.Wanted
		say("The file system is %d%% full. To come down to %d%%, %s are to go.\n", now.Used(), p.Thresholds.Low, humanSize(p.Wanted))
	} else {
		say("The file system was %d%% full, and is %d%% full now.\n", p.Disk.Used(), now.Used())
	}
	if !enough && f.request.Revision == "" {
		a.code = max(a.code, exitInUse)
		fmt.Fprintf(a.err, "Error: the file system is to be no more than %d%% full, and nothing more may go\n", p.Thresholds.Low)
	}
}
