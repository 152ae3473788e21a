package conformance

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// Text writes the report for people: a line a rule, with the evidence below those that do not hold, once for
// several in a row that are skipped for the same reason.
func (r Report) Text(w io.Writer) error {
	b := bufio.NewWriter(w)
	engine := ""
	if r.Engine != "" && r.Engine != r.Name {
		engine = fmt.Sprintf(" (%s)", printable(r.Engine))
	}
	fmt.Fprintf(b, "plugin %s%s, capabilities: %s\n\n", printable(r.Name), engine, printable(strings.Join(r.Capabilities, " ")))
	words := map[Status]string{Holds: "ok  ", Fails: "FAIL", Skipped: "skip"}
	for i, result := range r.Results {
		fmt.Fprintf(b, "%s  %-20s  %s\n", words[result.Status], result.Rule, result.Text)
		again := i+1 < len(r.Results) && r.Results[i+1].Status == Skipped && r.Results[i+1].Evidence == result.Evidence
		if result.Evidence != "" && !again {
			fmt.Fprintf(b, "      %s\n", printable(result.Evidence))
		}
	}
	fmt.Fprintf(b, "\n%d rules: %d hold, %d fail, %d skipped\n", len(r.Results), r.Count(Holds), r.Count(Fails), r.Count(Skipped))
	return b.Flush()
}

// printable is what a plugin said, fit for a terminal.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c >= 0x7f && c < 0xa0 {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(s, "?"))
}
