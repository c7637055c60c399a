package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/narrow-ml/narrow/configs"
	"github.com/narrow-ml/narrow/datasets"
	"github.com/narrow-ml/narrow/internal/cpu"
)

// The exit codes.
const (
	exitGood        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// app is what all commands share.
type app struct {
	stdout, stderr io.Writer
	log            *slog.Logger
	level          slog.LevelVar
	verbose, quiet bool
}

// run is the program without its process: arguments in, exit code out.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	a := &app{stdout: stdout, stderr: stderr}
	a.level.Set(slog.LevelInfo)
	a.log = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: &a.level, ReplaceAttr: withoutTime}))
	root := a.root()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return a.exit(ctx, root.ExecuteContext(ctx))
}

// withoutTime leaves the clock out of log lines: they are read as they appear.
func withoutTime(groups []string, attr slog.Attr) slog.Attr {
	if attr.Key == slog.TimeKey && len(groups) == 0 {
		return slog.Attr{}
	}
	return attr
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "narrow",
		Short: "Quantization-aware training in Go: train on the integers you ship",
		Long: `Narrow trains networks on the integers that they will run on, and shows what every bit-width costs.

CONFIG is a YAML file or a preset: ` + strings.Join(configs.Presets(), ", ") + ` (digits = digits-mlp).
RUN is a folder that train or quantize wrote. FILE is a model.narrow.`,
		Example: `  narrow compare digits
  narrow train digits --precision w4a8 --out runs/w4a8
  narrow verify runs/w4a8`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          a.noSuchCommand,
		RunE: func(c *cobra.Command, _ []string) error {
			c.SetOut(a.stderr)
			if err := c.Help(); err != nil {
				return err
			}
			return usagef("a command is needed")
		},
		PersistentPreRunE: func(*cobra.Command, []string) error { return a.start() },
	}
	root.PersistentFlags().BoolVarP(&a.verbose, "verbose", "v", false, "log more")
	root.PersistentFlags().BoolVarP(&a.quiet, "quiet", "q", false, "no progress, and only errors in the log")
	root.SetFlagErrorFunc(badFlag)
	root.AddCommand(
		a.trainCommand(), a.evalCommand(), a.predictCommand(), a.quantizeCommand(), a.compareCommand(),
		a.exportCommand(), a.verifyCommand(), a.benchCommand(), a.explainCommand(), a.dataCommand(), a.versionCommand(),
	)
	return root
}

// start applies the flags of all commands.
func (a *app) start() error {
	switch {
	case a.verbose && a.quiet:
		return usagef("--verbose and --quiet contradict each other")
	case a.verbose:
		a.level.Set(slog.LevelDebug)
	case a.quiet:
		a.level.Set(slog.LevelError)
	}
	if _, err := cpu.Detect(); err != nil {
		return &usageError{err: err}
	}
	return nil
}

// progress is where commands draw their progress.
func (a *app) progress() io.Writer {
	if a.quiet {
		return nil
	}
	return a.stderr
}

// laterCommands are commands this version knows of and refuses.
func laterCommands() map[string]string {
	return map[string]string{
		"sensitivity": "compare a few quant.rules instead, for example --set 'quant.rules=[{layer: fc1, weight: {format: int8}}]'",
		"search":      "compare a few precisions and quant.rules instead",
		"import":      "models are described in YAML and trained here",
	}
}

func (a *app) noSuchCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if hint, ok := laterCommands()[args[0]]; ok {
		return usagef("the command %q is not supported by this version; %s", args[0], hint)
	}
	var names []string
	for _, sub := range c.Commands() {
		names = append(names, sub.Name())
	}
	return usagef("unknown command %q%s", args[0], didYouMean(args[0], names))
}

// didYouMean is a hint at the candidate nearest to word, or a list of all of them. The distance is cobra's.
func didYouMean(word string, candidates []string) string {
	c := &cobra.Command{SuggestionsMinimumDistance: 2}
	for _, name := range candidates {
		c.AddCommand(&cobra.Command{Use: name, Run: func(*cobra.Command, []string) {}})
	}
	if near := c.SuggestionsFor(word); len(near) > 0 {
		return fmt.Sprintf("; did you mean %q?", near[0])
	}
	return fmt.Sprintf(" (allowed: %s)", strings.Join(candidates, ", "))
}

// badFlag turns a flag error into wrong usage, with the flag that was probably meant.
func badFlag(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return usagef("%v; narrow help %s lists the flags", err, c.Name())
	}
	var names []string
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, "--"+f.Name)
		}
	})
	slices.Sort(names)
	return usagef("%s has no flag --%s%s", c.CommandPath(), unknown.GetSpecifiedName(), didYouMean("--"+unknown.GetSpecifiedName(), names))
}

// usageError is a wrong command line.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &usageError{err: fmt.Errorf(format, args...)}
}

// arguments checks the number of positional arguments; most -1 means any number.
func arguments(least, most int, names string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < least {
			return usagef("%s needs %s; narrow help %s shows how", c.CommandPath(), names, strings.TrimPrefix(c.CommandPath(), "narrow "))
		}
		if most >= 0 && len(args) > most {
			return usagef("%s takes %s and nothing else; %q is too much", c.CommandPath(), names, args[most])
		}
		return nil
	}
}

// errNotIdentical ends a command whose result, already printed, is bad.
var errNotIdentical = errors.New("not identical")

// exit reports an error and chooses the exit code.
func (a *app) exit(ctx context.Context, err error) int {
	var usage *usageError
	var config *configs.Errors
	var noConfig *configs.NotFoundError
	var noData *datasets.UnknownError
	switch {
	case err == nil:
		return exitGood
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		fmt.Fprintln(a.stderr, "narrow: interrupted")
		return exitInterrupted
	case errors.As(err, &config):
		fmt.Fprintln(a.stderr, err) // every line names its file
		if n := len(config.Problems); n > 1 {
			fmt.Fprintf(a.stderr, "narrow: %d problems in the config\n", n)
		}
		return exitUsage
	}
	fmt.Fprintf(a.stderr, "narrow: %v\n", err)
	if errors.As(err, &usage) || errors.As(err, &noConfig) || errors.As(err, &noData) {
		return exitUsage
	}
	return exitFailed
}

// workers is the number of workers to use; 0 means one per CPU.
func workers(n int) (int, error) {
	if n < 0 {
		return 0, usagef("--workers is %d; it must be at least 0 (one per CPU)", n)
	}
	if n == 0 {
		return runtime.GOMAXPROCS(0), nil
	}
	return n, nil
}

// isFolder reports whether a path is an existing folder.
func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
