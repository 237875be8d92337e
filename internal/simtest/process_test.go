package simtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/stellarun/stella/server/api"
)

// What is killed.
const (
	withoutProcesses = "daemon without processes" // of this test, which makes many more kills hit the record than programs
	daemonHere       = "daemon start --foreground"
	daemonAway       = "daemon start"
	runHere          = "orch run start" // in the foreground
	resumeHere       = "orch run resume --all"
)

// inTurn are the processes of the real program, in the order in which they are
// killed.
var inTurn = []string{daemonHere, runHere, daemonHere, daemonAway, resumeHere}

// process is one that holds the site.
type process struct {
	kind string
	pid  int
	cmd  *exec.Cmd // nil for one that is not our child
	run  string    // token of the run that it was started for, if it was one
	from int64     // where its part of the log begins
}

// began is when a process was started, and how.
type began struct {
	at   time.Time
	kind string
}

func (v *victim) log() string { return filepath.Join(filepath.Dir(v.home), "log") }

// said is the end of what the processes have said.
func (v *victim) said() string {
	out := ""
	for _, path := range []string{v.log(), filepath.Join(v.home, "logs", "daemon.log")} {
		raw, _ := os.ReadFile(path)
		out += string(raw[max(0, len(raw)-4000):])
	}
	return out
}

// start starts a process of a kind.
func (v *victim) start(kind string) error {
	log, err := os.OpenFile(v.log(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	fi, err := log.Stat()
	if err != nil {
		return err
	}
	p := &process{kind: kind, from: fi.Size()}
	args := strings.Fields(kind)
	env := append(os.Environ(), "STELLA_LOG_LEVEL=warn")
	switch kind {
	case withoutProcesses:
		p.cmd = exec.Command(os.Args[0])
		env = append(env, envHome+"="+v.home, envTrace+"="+v.trace)
	case runHere:
		p.run = v.load.token()
		dag := []string{"once", "fan", "each", "parent", "locked", "secret"}[v.rng.IntN(6)]
		args = append(args, "--dag-id", "sim-"+dag, "--run-token", p.run)
		v.load.later(api.StartRequest{DAGID: "sim-" + dag, RunToken: p.run})
	}
	if p.cmd == nil {
		p.cmd = exec.Command(v.stella, append([]string{"--home", v.home, "--output", "json"}, args...)...)
	}
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = env, log, log
	at := time.Now()
	if kind == daemonAway {
		err = p.leave()
	} else {
		p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err = p.cmd.Start(); err == nil {
			p.pid = p.cmd.Process.Pid
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	v.process, v.execs[p.pid] = p, began{at, kind}
	return nil
}

// leave runs the command that starts a daemon, and takes down which one.
func (p *process) leave() error {
	var out bytes.Buffer
	p.cmd.Stdout = &out
	if err := p.cmd.Run(); err != nil {
		return err
	}
	var d struct{ PID int }
	if err := json.Unmarshal(out.Bytes(), &d); err != nil || d.PID == 0 {
		return fmt.Errorf("it says %q: %v", &out, err)
	}
	p.cmd, p.pid = nil, d.PID
	return nil
}

// kill ends the process, and cuts off its disk with it where it has one of its own.
func (v *victim) kill() (killed bool, err error) {
	if v.process == nil || v.disk == nil {
		return v.end()
	}
	if err := v.disk.cut(v.process.pid); err != nil {
		return false, err
	}
	killed, err = v.end()
	return killed, errors.Join(err, v.disk.restore())
}

// end ends the process without a chance to do anything. A daemon that has ended by
// itself is a fault; a foreground may be through: then it was not killed.
func (v *victim) end() (killed bool, err error) {
	p := v.process
	if p == nil {
		return false, nil
	}
	v.process = nil
	if p.cmd == nil {
		if gone(p.pid) {
			return false, errors.New("the daemon has ended by itself")
		}
		err := syscall.Kill(p.pid, syscall.SIGKILL)
		for late := time.Now().Add(10 * time.Second); err == nil && !gone(p.pid); {
			if time.Sleep(time.Millisecond); time.Now().After(late) {
				return false, fmt.Errorf("process %d lives on", p.pid)
			}
		}
		return err == nil, err
	}
	p.cmd.Process.Kill()
	err = p.cmd.Wait()
	if ws := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() && ws.Signal() == syscall.SIGKILL {
		return true, nil
	}
	if p.kind != runHere && p.kind != resumeHere {
		return false, fmt.Errorf("%s has ended by itself: %v", p.kind, err)
	}
	return false, v.through(p)
}

// through looks at a foreground that has ended by itself: its runs have, or its
// run could not be started.
func (v *victim) through(p *process) error {
	switch code := p.cmd.ProcessState.ExitCode(); code {
	case 0, 4: // it completed, or failed
		if v.load.count("foreground:ended"); p.run == "" {
			return nil
		}
		return v.load.journal.add(ack{Kind: "foreground", Token: p.run})
	case 1:
		raw, err := os.ReadFile(v.log())
		if err != nil {
			return err
		}
		for line := range bytes.Lines(raw[p.from:]) {
			var out struct{ Error api.Error }
			if json.Unmarshal(line, &out) == nil && slices.Contains(closed, out.Error.Code) {
				v.load.count("foreground:" + string(out.Error.Code))
				return nil
			}
		}
		fallthrough
	default:
		return fmt.Errorf("%s has ended with %d", p.kind, code)
	}
}

// gone says whether a process has ended, though its parent may not know it yet.
func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(stat), ") ")
	return err != nil || strings.HasPrefix(rest, "Z")
}
