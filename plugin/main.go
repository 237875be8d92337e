package plugin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// maxRequest bounds what is read of $STELLA_INPUT.
const maxRequest = 64 << 20

// Main runs the plugin and ends the process. It reads the request, enters the
// workspace, calls run, and turns what run returns into an error line and an
// exit code: nil is 0, an *[Error] is what it says, anything else is
// [ExitFailed]. ctx is cancelled at SIGTERM. Deferred calls in main do not run;
// those in run do.
func Main(run func(ctx context.Context, c *Call) error) {
	os.Exit(serve(run, os.Getenv, os.Stderr))
}

// serve is Main without the process.
func serve(run func(context.Context, *Call) error, getenv func(string) string, stderr io.Writer) int {
	c, err := open(getenv)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return ExitFailed
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	err = run(ctx, c)
	code := 0
	if err != nil {
		e := asError(err)
		fmt.Fprintln(stderr, e.Code+": "+e.Message)
		code = exitCode(e)
		if err := c.fail(e); err != nil {
			fmt.Fprintln(stderr, err)
		}
	}
	if err := c.out.Close(); err != nil && code == 0 {
		fmt.Fprintln(stderr, err)
		code = ExitFailed
	}
	return code
}

// open reads the request that the environment names.
func open(getenv func(string) string) (*Call, error) {
	work, in, out := getenv("STELLA_WORKSPACE"), getenv("STELLA_INPUT"), getenv("STELLA_OUTPUT")
	if work == "" || in == "" || out == "" {
		return nil, fmt.Errorf("plugin: STELLA_WORKSPACE, STELLA_INPUT or STELLA_OUTPUT is not set: stella starts this program")
	}
	if v := getenv("STELLA_API"); v != strconv.Itoa(API) {
		return nil, fmt.Errorf("plugin: STELLA_API is %q, this program speaks %d", v, API)
	}
	c := &Call{
		root: filepath.Dir(work), artifacts: getenv("STELLA_ARTIFACTS"), secrets: getenv("STELLA_SECRETS"),
		keys: make(map[string]bool), names: make(map[string]bool),
	}
	if s := getenv("STELLA_DEADLINE"); s != "" {
		t, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			return nil, fmt.Errorf("plugin: STELLA_DEADLINE: %w", err)
		}
		c.deadline = t
	}
	if err := c.readRequest(in); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(out, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return nil, fmt.Errorf("plugin: %w", err)
	}
	if err := os.Chdir(work); err != nil {
		f.Close()
		return nil, fmt.Errorf("plugin: %w", err)
	}
	c.out = f
	return c, nil
}

func (c *Call) readRequest(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("plugin: %w", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxRequest+1))
	switch {
	case err != nil:
		return fmt.Errorf("plugin: request: %w", err)
	case len(raw) > maxRequest:
		return fmt.Errorf("plugin: request: more than %d bytes", maxRequest)
	}
	if err := json.Unmarshal(raw, &c.Request); err != nil {
		return fmt.Errorf("plugin: request: %w", err)
	}
	if c.Request.API != API {
		return fmt.Errorf("plugin: the request is of API %d, this program speaks %d", c.Request.API, API)
	}
	return nil
}
