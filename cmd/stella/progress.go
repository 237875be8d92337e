package main

import (
	"fmt"
	"sync"
	"time"

	"github.com/stellarun/stella/server/api"
)

const progressEvery = 100 * time.Millisecond

// progressOf returns what shows the progress of long work, or nil where nobody
// looks: in a pipe, and with --quiet.
func (a *app) progressOf(verb string) api.Progress {
	s := a.stderr
	if !s.terminal || s.quiet {
		return nil
	}
	var mu sync.Mutex
	var last time.Time
	return func(done, total int64) {
		mu.Lock()
		defer mu.Unlock()
		now := a.now()
		if now.Sub(last) < progressEvery {
			return
		}
		last = now
		if total > 0 {
			s.showProgress(fmt.Sprintf("%s %3d%%", verb, done*100/total))
		} else {
			s.showProgress(fmt.Sprintf("%s %d", verb, done))
		}
	}
}

func (s *screen) showProgress(line string) {
	if s.err == nil {
		_, s.err = fmt.Fprintf(s.w, "\r%s\x1b[K", line)
		s.progress = true
	}
}

// clearProgress takes the line of progress away.
func (s *screen) clearProgress() {
	if s.progress {
		s.progress = false
		_, s.err = s.w.Write([]byte("\r\x1b[K"))
	}
}
