package sandbox_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"a.stella/initproc"

	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/runner/sandbox"
)

// left lists the living processes of an attempt, by the folder in their
// environment.
func left(t testing.TB, dir string) []int {
	t.Helper()
	list, err := initproc.Processes()
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, p := range list {
		raw, err := os.ReadFile("/proc/" + strconv.Itoa(p.PID) + "/environ")
		if err == nil && p.State != 'Z' && strings.Contains(string(raw), "STELLA_WORKSPACE="+dir+"/") {
			pids = append(pids, p.PID)
		}
	}
	return pids
}

func TestDeadlines(t *testing.T) {
	code := func(n int) *int { return &n }
	// Where the program must be ready when SIGTERM comes, it is given time.
	const soon, later = 50 * time.Millisecond, time.Second
	for name, c := range map[string]struct {
		args     []string
		timeout  time.Duration
		grace    time.Duration
		exitCode *int
		signal   string
	}{
		"SIGTERM ends it":                         {[]string{"wait"}, soon, time.Minute, nil, "SIGTERM"},
		"SIGTERM is ignored until the grace ends": {[]string{"ignore-term"}, later, soon, nil, "SIGKILL"},
		"without a grace it is killed at once":    {[]string{"ignore-term"}, later, 0, nil, "SIGKILL"},
		"its exit code is kept":                   {[]string{"handle-term", "42"}, later, time.Minute, code(42), ""},
		"success comes too late":                  {[]string{"handle-term", "0"}, later, time.Minute, code(0), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			task, _ := task(t, c.args...)
			task.Timeout, task.Grace = c.timeout, c.grace
			rep := execute(t, task)
			if rep.Stop != runner.StopDeadline {
				t.Errorf("stop %q", rep.Stop)
			}
			if (rep.ExitCode == nil) != (c.exitCode == nil) || c.exitCode != nil && *rep.ExitCode != *c.exitCode {
				t.Errorf("exit code %v, want %v", rep.ExitCode, c.exitCode)
			}
			if rep.Signal != c.signal {
				t.Errorf("signal %q, want %q", rep.Signal, c.signal)
			}
			if wall := time.Duration(rep.Usage.WallMs) * time.Millisecond; wall < c.timeout || wall > 30*time.Second {
				t.Errorf("took %v", wall)
			}
		})
	}
}

func TestTheCauseOfACancellationIsReported(t *testing.T) {
	for cause, want := range map[error]runner.Stop{
		runner.ErrCancelled: runner.StopCancel, runner.ErrShutdown: runner.StopShutdown,
		runner.ErrRevoked: runner.StopRevoked, errors.New("whatever"): runner.StopShutdown,
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		task, rec := task(t, "handle-term", "7")
		ready := rec.saw("ready")
		go func() {
			<-ready
			cancel(cause)
		}()
		rep := executeCtx(t, ctx, task)
		if rep.Stop != want || rep.ExitCode == nil || *rep.ExitCode != 7 {
			t.Errorf("%v: stop %q, exit code %v, want %q and 7", cause, rep.Stop, rep.ExitCode, want)
		}
	}
}

// An abort leaves no time to what is being stopped already.
func TestAnAbortEndsAGrace(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	task, rec := task(t, "scorn-term")
	aborted := make(chan struct{})
	task.Grace, task.Aborted = time.Hour, aborted
	ready, told := rec.saw("ready"), rec.saw("told")
	go func() {
		<-ready
		cancel(runner.ErrCancelled)
		<-told
		close(aborted)
	}()
	if rep := executeCtx(t, ctx, task); rep.Stop != runner.StopCancel || rep.Signal != "SIGKILL" {
		t.Errorf("stop %q, signal %q", rep.Stop, rep.Signal)
	}
}

func TestDaemonsDieWithTheProgram(t *testing.T) {
	task, rec := task(t, "tree", "3")
	begin := time.Now()
	rep := execute(t, task)
	exited(t, rep, 0, rec)
	if rep.Leftover != 3 {
		t.Errorf("leftover %d, want 3", rep.Leftover)
	}
	if pids := left(t, task.Dir); len(pids) > 0 {
		t.Errorf("alive: %v", pids)
	}
	if d := time.Since(begin); d > 30*time.Second {
		t.Errorf("took %v: somebody waited for the pipe", d)
	}
}

// TestKillingTheInitProcess: in this tier a program can do that. It does not
// help it.
func TestKillingTheInitProcess(t *testing.T) {
	task, _ := task(t, "kill-init")
	rep := execute(t, task)
	if rep.ExitCode != nil || rep.Signal != "SIGKILL" || rep.Detail == "" {
		t.Errorf("exit code %v, signal %q, detail %q", rep.ExitCode, rep.Signal, rep.Detail)
	}
	if rep.Leftover == 0 {
		t.Error("the daemon was not found")
	}
	if pids := left(t, task.Dir); len(pids) > 0 {
		t.Errorf("alive: %v", pids)
	}
}

// TestStoppingTheInitProcess: an init process that no longer does anything is
// given up, and its tree is killed all the same.
func TestStoppingTheInitProcess(t *testing.T) {
	task, rec := task(t, "stop-init")
	ready := rec.saw("ready")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-ready
		cancel(runner.ErrCancelled)
	}()
	task.Grace = 0
	s := sandbox.New(sandbox.Options{})
	s.SetPatience(200 * time.Millisecond)
	rep, err := s.Execute(ctx, task)
	if err != nil || rep.Stop != runner.StopCancel || rep.Signal != "SIGKILL" || rep.Leftover == 0 {
		t.Errorf("%v, stop %q (%s), signal %q, leftover %d", err, rep.Stop, rep.Detail, rep.Signal, rep.Leftover)
	}
	if pids := left(t, task.Dir); len(pids) > 0 {
		t.Errorf("alive: %v", pids)
	}
}

func TestTheInitProcessIsOpaque(t *testing.T) {
	if os.Getuid() == 0 {
		// Root reads what it likes; the other user is tested by
		// TestAsAnotherUser.
		return
	}
	opaque(t)
}

func opaque(t *testing.T) {
	t.Helper()
	task, rec := task(t, "peek-init")
	exited(t, execute(t, task), 0, rec)
	if want, got := "environ true\nmem true\nfd true\nptrace true", rec.stdout(); got != want {
		t.Errorf("a program reads its init process: %q, want %q", got, want)
	}
}

// TestAsAnotherUser runs tests again as a user without rights.
func TestAsAnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	evil()
	self := filepath.Join(built, "sandbox.test")
	raw, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(self, raw, 0o755); err != nil {
		t.Fatal(err)
	}
	tmp := filepath.Join(built, "nobody")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	const uid = 61234
	if err := os.Chown(tmp, uid, uid); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(self, "-test.run", "^(TestTheInitProcessIsOpaque|TestExitCodes.*|TestDaemons.*|TestAScript.*|TestAnInfiniteLoop.*|TestProbe.*)$", "-test.v")
	c.Env = []string{"TMPDIR=" + tmp, builtVariable + "=" + built, "PATH=" + os.Getenv("PATH")}
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := c.CombinedOutput()
	if err != nil || strings.Count(string(out), "--- PASS") < 6 {
		t.Errorf("%v\n%s", err, out)
	}
}

const (
	executorMarker = "execute-and-wait"
	builtVariable  = "SANDBOX_TEST_BUILT"
)

// executorMain is a stella that is killed in the middle of an attempt.
func executorMain(args []string) int {
	t := runner.Task{
		RunID: runID, StepID: "step", Attempt: 1, Dir: args[0], Runtime: "exec",
		Args: args[2:], SourceDate: time.Unix(1, 0), Grace: time.Minute,
		Log: func(_ string, _ time.Time, line []byte) { os.Stdout.Write(append(line, '\n')) },
	}
	raw, err := os.ReadFile(args[1])
	if err == nil {
		t.Entry = bytesContent(raw)
		_, err = sandbox.New(sandbox.Options{}).Execute(context.Background(), t)
	}
	if err != nil {
		os.Stderr.WriteString(err.Error())
		return 1
	}
	return 0
}

// TestNothingOutlivesStella kills the executing process with SIGKILL.
func TestNothingOutlivesStella(t *testing.T) {
	dir := t.TempDir()
	c := exec.Command("/proc/self/exe", executorMarker, dir, evil(), "daemon-and-ignore")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 5)
	if _, err := out.Read(buf); err != nil || string(buf) != "ready" {
		t.Fatalf("the program did not start: %q, %v", buf, err)
	}
	if n := len(left(t, dir)); n < 2 {
		t.Errorf("%d processes before the kill, want the program and its daemon", n)
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	c.Wait()
	// The daemon holds the pipe that we read: its end is the end of all.
	for len(left(t, dir)) > 0 {
		if time.Since(begin) > 30*time.Second {
			t.Fatalf("alive: %v", left(t, dir))
		}
	}
	t.Logf("all gone %v after the kill", time.Since(begin))
}

// TestSignalsAreAtTheirDefaults runs a test again as the child of a process
// that ignores some signals and has others blocked, as nohup and some
// supervisors do.
func TestSignalsAreAtTheirDefaults(t *testing.T) {
	evil()
	type result struct {
		out []byte
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its mask
		var set unix.Sigset_t
		set.Val[0] = 1<<(unix.SIGUSR1-1) | 1<<(unix.SIGTERM-1)
		if err := unix.PthreadSigmask(unix.SIG_BLOCK, &set, nil); err != nil {
			done <- result{nil, err}
			return
		}
		c := exec.Command("/bin/sh", "-c", `trap "" HUP INT TSTP USR2 CHLD; exec /proc/`+strconv.Itoa(os.Getpid())+
			`/exe -test.run '^(TestWhatAProgramFindsAroundItself|TestDeadlines)$' -test.v`)
		c.Env = append(os.Environ(), builtVariable+"="+built)
		out, err := c.CombinedOutput()
		done <- result{out, err}
	}()
	r := <-done
	if r.err != nil || !strings.Contains(string(r.out), "--- PASS: TestWhatAProgramFindsAroundItself") {
		t.Errorf("%v\n%s", r.err, r.out)
	}
}

// TestNoDeadlineIsMissed: one that falls into the start of its program holds, too.
func TestNoDeadlineIsMissed(t *testing.T) {
	for i := range 150 {
		task, _ := task(t, "ignore-term")
		task.Timeout, task.Grace = time.Duration(1+i)*20*time.Microsecond, 0
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		rep := executeCtx(t, ctx, task)
		cancel()
		if rep.Stop != runner.StopDeadline {
			t.Fatalf("timeout %v: stop %q (%s), signal %q", task.Timeout, rep.Stop, rep.Detail, rep.Signal)
		}
	}
}
