package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// manCommand writes the manual pages of all commands, for `make install`. They say what --help says.
func (a *app) manCommand() *cobra.Command {
	return &cobra.Command{
		Use: "man DIRECTORY", Short: "Write the manual pages of all commands",
		Hidden: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("name one directory")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return writePages(cmd.Root(), args[0]) },
	}
}

// writePages writes the page of a command, and those of the commands below it.
func writePages(cmd *cobra.Command, directory string) error {
	if err := os.WriteFile(filepath.Join(directory, pageName(cmd)+".1"), []byte(page(cmd)), 0o644); err != nil {
		return err
	}
	for _, sub := range documented(cmd) {
		if err := writePages(sub, directory); err != nil {
			return err
		}
	}
	return nil
}

// documented are the commands below one, without those that make completions: `make install` calls them.
func documented(cmd *cobra.Command) []*cobra.Command {
	return slices.DeleteFunc(slices.Clone(cmd.Commands()), func(c *cobra.Command) bool {
		return !c.IsAvailableCommand() || c.Name() == "completion"
	})
}

func pageName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// page is a manual page. The help is laid out already, and nothing of it is filled.
func page(cmd *cobra.Command) string {
	cmd.InitDefaultHelpFlag()
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %s 1 \"\" \"Unmoor %s\" \"Unmoor\"\n", strings.ToUpper(roff(pageName(cmd))), roff(version))
	section := func(name, text string) {
		if text = strings.TrimRight(text, " \n"); text != "" {
			fmt.Fprintf(&b, ".SH %s\n.nf\n%s\n.fi\n", name, roff(text))
		}
	}
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roff(pageName(cmd)), roff(cmd.Short))
	if cmd.HasAvailableSubCommands() {
		section("SYNOPSIS", cmd.CommandPath()+" COMMAND [flags]")
	} else {
		section("SYNOPSIS", cmd.UseLine())
	}
	if cmd.Long != "" {
		section("DESCRIPTION", cmd.Long)
	} else {
		section("DESCRIPTION", cmd.Short+".")
	}
	section("EXAMPLES", cmd.Example)
	var commands, also []string
	if cmd.HasParent() {
		also = append(also, pageName(cmd.Parent())+"(1)")
	} else {
		also = append(also, "unmoor-config(5)", "podman(1)", "buildah(1)")
	}
	for _, sub := range documented(cmd) {
		commands = append(commands, fmt.Sprintf("%-12s %s", sub.Name(), sub.Short))
		also = append(also, pageName(sub)+"(1)")
	}
	section("COMMANDS", strings.Join(commands, "\n"))
	section("OPTIONS", cmd.LocalFlags().FlagUsagesWrapped(78))
	section("\"GLOBAL OPTIONS\"", cmd.InheritedFlags().FlagUsagesWrapped(78))
	fmt.Fprintf(&b, ".SH \"SEE ALSO\"\n%s\n", roff(strings.Join(also, ", ")))
	return b.String()
}

// roff is a text so that troff prints it as it is.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "^", `\(ha`, "~", `\(ti`, "`", `\(ga`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
