package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/server"
	"github.com/stellarun/stella/server/api"
)

// app is what every command has: the world outside, and the global options.
type app struct {
	stdin  io.Reader
	stdout *screen
	stderr *screen
	getenv func(string) string
	now    func() time.Time
	opt    options
	parent *os.File // of a daemon that another command has started: where it says why it ends; else nil
	// patience is how long a command looks for a site that others hold.
	patience time.Duration
	// ends is how long a daemon that waits has to end after SIGTERM.
	ends time.Duration
	// begun is the start that is recorded of this process while it tries to open the site again.
	begun int64
}

// options are the global ones. Each is a flag, then an environment variable,
// then a default.
type options struct {
	home        string
	tenant      string
	output      string
	quiet       bool
	noColor     bool
	yes         bool
	apiURL      string
	traceparent string
	traceID     string // of traceparent
	logLevel    slog.Level
	logging     bool // somebody asked for the log of a process that is no daemon
}

// Forms of output.
const (
	outTable  = "table"
	outJSON   = "json"
	outNDJSON = "ndjson"
)

func newApp() *app {
	return &app{
		stdin:    os.Stdin,
		stdout:   newScreen(os.Stdout),
		stderr:   newScreen(os.Stderr),
		getenv:   os.Getenv,
		now:      time.Now,
		patience: 10 * time.Second,
		ends:     30 * time.Second,
	}
}

// addGlobalFlags declares the global options on the root command.
func (a *app) addGlobalFlags(c *cobra.Command) {
	f := c.PersistentFlags()
	f.StringVar(&a.opt.home, "home", "", "`DIR` of the site (STELLA_HOME; default $XDG_DATA_HOME/stella or ~/.local/share/stella)")
	f.StringVar(&a.opt.tenant, "tenant", "", "`NAME` of the tenant to act in (STELLA_TENANT; default from site.toml)")
	f.StringVar(&a.opt.output, "output", "", "`FORM` of results: table, json or ndjson (default table)")
	f.BoolVarP(&a.opt.quiet, "quiet", "q", false, "say nothing but errors and the results that were asked for: no progress, notes or hints, and no table of what a command has done")
	f.BoolVar(&a.opt.noColor, "no-color", false, "no colours on a terminal (NO_COLOR)")
	f.BoolVarP(&a.opt.yes, "yes", "y", false, "do not ask before something that cannot be undone")
	f.StringVar(&a.opt.apiURL, "api-url", "", "`SOCKET` to speak to, as unix:///path or a path; the site is then never opened here (STELLA_API_URL)")
	f.StringVar(&a.opt.traceparent, "traceparent", "", "W3C `CONTEXT` of the caller (TRACEPARENT)")
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{outTable, outJSON, outNDJSON}, cobra.ShellCompDirectiveNoFileComp))
}

// resolve fills in what flags left open, and checks everything.
func (a *app) resolve() error {
	o := &a.opt
	env := func(p *string, name string) {
		if *p == "" {
			*p = a.getenv(name)
		}
	}
	env(&o.home, "STELLA_HOME")
	env(&o.tenant, "STELLA_TENANT")
	env(&o.apiURL, "STELLA_API_URL")
	env(&o.traceparent, "TRACEPARENT")
	if o.traceparent != "" {
		var ok bool
		if o.traceID, ok = server.ParseTraceparent(o.traceparent); !ok {
			return invalid("the traceparent %q is not 00-TRACEID-PARENTID-FLAGS", o.traceparent)
		}
	}
	o.noColor = o.noColor || a.getenv("NO_COLOR") != ""
	if o.output == "" {
		o.output = outTable
	}
	if o.output != outTable && o.output != outJSON && o.output != outNDJSON {
		bad := o.output
		o.output = outTable
		return invalid("--output is table, json or ndjson, not %q", bad)
	}
	if o.tenant != "" && !manifests.ValidName(o.tenant) {
		return invalid("the tenant %q is not a name: [a-z0-9][a-z0-9.-]{0,62}", o.tenant)
	}
	if s := a.getenv("STELLA_LOG_LEVEL"); s != "" {
		if err := o.logLevel.UnmarshalText([]byte(s)); err != nil {
			return invalid("STELLA_LOG_LEVEL is debug, info, warn or error, not %q", s)
		}
		o.logging = true
	}
	a.stdout.color = a.stdout.terminal && !o.noColor
	a.stderr.color = a.stderr.terminal && !o.noColor
	a.stderr.quiet = o.quiet
	return a.resolveHome()
}

func (a *app) resolveHome() error {
	home := a.opt.home
	if home == "" {
		if data := a.getenv("XDG_DATA_HOME"); filepath.IsAbs(data) {
			home = filepath.Join(data, "stella")
		} else if user := a.getenv("HOME"); user != "" {
			home = filepath.Join(user, ".local", "share", "stella")
		} else {
			return nil // a command that needs a home says so
		}
	}
	abs, err := filepath.Abs(home)
	if err != nil {
		return fmt.Errorf("home: %w", err)
	}
	a.opt.home = abs
	return nil
}

// needHome refuses to go on without a home.
func (a *app) needHome() error {
	if a.opt.home == "" {
		return &api.Error{Code: api.CodeInvalid, Message: "no home folder is known", Hint: "give one with --home or STELLA_HOME"}
	}
	return nil
}

// invalid is a request that cannot be right.
func invalid(format string, args ...any) error {
	return &api.Error{Code: api.CodeInvalid, Message: fmt.Sprintf(format, args...)}
}

// log is the log of a process that holds a site: JSON lines on stderr, of a
// daemon always, of others when STELLA_LOG_LEVEL asks for it.
func (a *app) log(daemon bool) *slog.Logger {
	if !daemon && !a.opt.logging {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewJSONHandler(a.stderr.w, &slog.HandlerOptions{Level: a.opt.logLevel}))
}

// absolute makes a path that a process in another folder can use.
func absolute(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", invalid("%s: %v", path, err)
	}
	return abs, nil
}

// parseTime reads a time from the command line, in the one form or a shorter
// one: RFC 3339 in any zone, or a date, which begins at midnight in UTC.
func parseTime(s string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, invalid("%q is not a time: use 2026-11-22T10:00:00Z or 2026-11-22", s)
}

// short is a digest as tables show it.
func short(digest string) string {
	if len(digest) > 12 {
		return digest[:12]
	}
	return digest
}

// seconds is a time as tables show it: without the fraction that it is
// recorded with.
func seconds(s string) string {
	if head, _, ok := strings.Cut(s, "."); ok && len(s) == 30 {
		return head + "Z"
	}
	return s
}

// usage is a command line that cannot be understood.
func usage(cmd *cobra.Command, err error) error {
	why := err.Error()
	for _, of := range []struct{ parser, want string }{{"ParseBool", "true or false is wanted"}, {"Parse", "a whole number is wanted, and none too large"}} {
		if text, _, ok := strings.Cut(why, ": strconv."+of.parser); ok {
			why = text + ": " + of.want
		}
	}
	return &api.Error{Code: api.CodeInvalid, Message: why, Hint: cmd.CommandPath() + " --help"}
}

// fileError is what is wrong with a file of the command line.
func fileError(path string, err error) error {
	var e *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &api.Error{Code: api.CodeNotFound, Message: path + ": no such file"}
	case errors.Is(err, fsx.ErrNotRegular):
		return &api.Error{Code: api.CodeInvalid, Message: path + ": " + fsx.ErrNotRegular.Error(),
			Hint: "name the file itself: links, folders, pipes and <(…) are not read"}
	case errors.As(err, &e):
		return invalid("%s: %v", path, e.Err)
	}
	return invalid("%s: %v", path, err)
}
