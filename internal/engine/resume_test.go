package engine_test

import (
	"context"
	"testing"

	"github.com/stellarun/stella/internal/engine"
	"github.com/stellarun/stella/server/api"
)

// Who asks a process that executes nothing to let all runs go on is told so, and asks again;
// as many as there are.
func TestNobodyResumesWhereNothingIsExecuted(t *testing.T) {
	ctx := context.Background()
	l := newLab(t)
	l.script("audit-hello", helloScript, true)
	l.publish("1.0.0", hello)
	for _, token := range []string{"one", "two"} {
		l.start(api.StartRequest{DAGID: "audit", RunToken: token})
	}
	if err := l.e.Close(); err != nil {
		t.Fatal(err)
	}
	e, err := engine.Open(ctx, engine.Options{Home: l.home, Version: "0.1.0"})
	if err != nil {
		t.Fatal(err)
	}
	runs, err := e.As(api.Principal{Name: who}).ResumeRun(ctx, "")
	if codeOf(err) != api.CodeNotExecuting {
		t.Errorf("%v, %v", runs, err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	l.open()
	if runs, err := l.site().ResumeRun(ctx, ""); err != nil || len(runs) != 2 {
		t.Errorf("%v, %v", runs, err)
	}
	l.execute()
}
