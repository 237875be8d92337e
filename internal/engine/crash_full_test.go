//go:build failpoint

package engine_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/internal/failpoint"
	"github.com/stellarun/stella/server/api"
)

// TestFullChild is a command on a site whose disk is full.
func TestFullChild(t *testing.T) {
	home, run := os.Getenv("STELLA_FULL_HOME"), os.Getenv("STELLA_FULL_RUN")
	if home == "" {
		t.Skip("it is started by TestAFullDisk")
	}
	ctx := context.Background()
	_, err := engine.Open(ctx, executing(home))
	fmt.Println("executing:", told(err))
	e, err := engine.Open(ctx, engine.Options{Home: home, Version: "0.1.0"})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	site := e.As(api.Principal{Name: who})
	d, err := site.GetRun(ctx, run)
	fmt.Println("get:", d.Status, e.Unkempt(), told(err))
	ws, err := site.ListWorkspaces(ctx, api.WorkspaceQuery{})
	fmt.Println("workspaces:", len(ws.Workspaces), ws.Workspaces[0].State, told(err))
	_, err = site.AbortRun(ctx, run, api.EndRequest{Reason: "test"})
	fmt.Println("abort:", told(e.Help(ctx, err)))
	_, err = site.CleanWorkspaces(ctx, api.WorkspaceCleanup{}, nil)
	fmt.Println("cleanup:", told(err))
}

// told is the code of an error, and whether its hint names the workspace.
func told(err error) string {
	var known *api.Error
	switch {
	case err == nil:
		return "ok"
	case !errors.As(err, &known):
		return "no code: " + err.Error()
	case strings.Contains(known.Hint, "/runs/") && strings.Contains(known.Hint, "/a/1 holds 2 MiB"):
		return string(known.Code) + ", may go"
	}
	return string(known.Code) + " " + known.Message
}

// Where what a process that died has left cannot be put in order, since the disk is
// full, whoever only reads reads; the others are told what may go.
func TestAFullDisk(t *testing.T) {
	l := newLab(t)
	l.script("audit-hello", `head -c 2097152 /dev/zero >"$STELLA_WORKSPACE/big"`+"\n"+helloScript, true)
	l.publish("1.0.0", hello)
	run := l.start(api.StartRequest{DAGID: "audit"}).Run.RunID
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	child := func(name, fail string) string {
		cmd := exec.Command(os.Args[0], "-test.run=^"+name+"$", "-test.v")
		cmd.Env = append(os.Environ(), "STELLA_FULL_HOME="+l.home, "STELLA_FULL_RUN="+run, failpoint.Env+"="+fail)
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	child("TestFullDying", failpoint.RunnerFinish+"=kill")
	got := child("TestFullChild", failpoint.StoreCommitBefore+"=full")
	for _, want := range []string{
		"executing: NO_SPACE, may go", "get: running true ok", "workspaces: 1 kept ok", "abort: NO_SPACE, may go",
		"cleanup: NO_SPACE there is no space left",
	} {
		if !strings.Contains(got, "\n"+want) {
			t.Errorf("want %q in\n%s", want, got)
		}
	}
	l.open()
	if _, err := l.site().AbortRun(context.Background(), run, api.EndRequest{Reason: "test"}); err != nil {
		t.Errorf("with space again: %v", err)
	}
	l.verify()
}

// TestFullDying is the process that dies while its attempt is under way.
func TestFullDying(t *testing.T) {
	home := os.Getenv("STELLA_FULL_HOME")
	if home == "" {
		t.Skip("it is started by TestAFullDisk")
	}
	e, err := engine.Open(context.Background(), executing(home))
	if err != nil {
		t.Fatal(err)
	}
	_, err = e.As(api.Principal{Name: who}).ResumeRun(context.Background(), "")
	t.Fatal(errors.Join(err, e.Execute(context.Background(), engine.Idle)))
}
