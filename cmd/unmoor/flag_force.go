package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/unmoor/unmoor/core"
)

// forceFlag is --force[=none|idle|stop|kill].
type forceFlag struct{ level core.Force }

func (f *forceFlag) String() string { return f.level.String() }
func (f *forceFlag) Type() string   { return "level" }
func (f *forceFlag) Set(s string) error {
	// Scripts for podman write --force=true.
	switch s {
	case "true":
		s = "stop"
	case "false":
		s = "none"
	}
	if err := f.level.UnmarshalText([]byte(s)); err != nil {
		return fmt.Errorf("the level is none, idle, stop or kill")
	}
	return nil
}

// secondsFlag is a length of time.
type secondsFlag uint64

func (s *secondsFlag) String() string { return strconv.FormatUint(uint64(*s), 10) }
func (s *secondsFlag) Type() string   { return "seconds" }
func (s *secondsFlag) Set(text string) error {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return errors.New("wants a whole number of seconds")
	}
	*s = secondsFlag(n)
	return nil
}

// duration is nil where the flag was not given.
func (s *secondsFlag) duration(cmd *cobra.Command) *time.Duration {
	if !cmd.Flags().Changed("time") {
		return nil
	}
	const most = 1 << 31 // 68 years: as good as for ever, and far from an overflow
	d := time.Duration(min(*s, most)) * time.Second
	return &d
}

// forceWords are the references for which somebody may have written --force kill in place of
// --force=kill.
func forceWords(references []string) []string {
	var words []string
	for _, r := range references {
		switch r {
		case "none", "idle", "stop", "kill":
			words = append(words, r)
		}
	}
	return words
}

// removalFlags are what rmi, rm and plan share.
type removalFlags struct {
	force   forceFlag
	all     bool
	ignore  bool
	noPrune bool
	dryRun  bool
	quiet   bool
	verbose bool
	seconds secondsFlag
	format  string
	// revision is that of the plan which is meant, or empty.
	revision string
}

func (f *removalFlags) register(cmd *cobra.Command, noun string) {
	flags := cmd.Flags()
	flags.VarP(&f.force, "force", "f", `remove containers too: idle ones ("idle"), those that their engine stops ("stop", also plain --force), those with processes that nobody stops ("kill")`)
	flags.Lookup("force").NoOptDefVal = "stop"
	flags.Lookup("force").DefValue = "none"
	if err := cmd.RegisterFlagCompletionFunc("force", cobra.FixedCompletions([]string{"none", "idle", "stop", "kill"}, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // registered twice
	}
	flags.BoolVarP(&f.all, "all", "a", false, "all "+noun+"s of the store")
	flags.BoolVarP(&f.ignore, "ignore", "i", false, "ignore "+noun+"s that do not exist (without it the exit code is 1, with --force too)")
	flags.VarP(&f.seconds, "time", "t", "the grace period in `seconds`, before what does not stop is killed (default from the configuration: 10)")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "print the IDs of what was removed alone")
	letter := "v"
	if noun == "container" {
		letter = "" // -v are the volumes in podman rm
	}
	flags.BoolVarP(&f.verbose, "verbose", letter, false, "name everything that stands in the way, however long the list")
	flags.StringVar(&f.format, "format", "", "print json, or each result by a Go `template`")
}

func (f *removalFlags) registerRevision(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.revision, "plan", "", "carry out the plan with this `revision` (plan --format json prints it, with the same --force), or nothing where it does not hold any more")
}

func isRevision(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}
