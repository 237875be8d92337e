package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/stellarun/stella/plugin"
	"github.com/stellarun/stella/runner"
)

// A watch looks at intervals at what cannot be waited for: the progress lines
// that a program appends to its output file, the size of that file, and that of
// the workspace. (A file that a program writes to by itself can only be asked;
// inotify would add a descriptor for each folder.) The verdict on the output
// file falls at the end, whatever was seen before.
type watch struct {
	task   *runner.Task
	output *os.File
	breach chan string // at most one message: the limit that was exceeded
	quit   chan struct{}
	done   chan struct{}
	offset int64 // of the output file: lines before it were passed on
}

// startWatch begins to look, every a.box.look and less often where looking
// takes long.
func startWatch(a *attempt) *watch {
	w := &watch{
		task: a.task, output: a.prepared.output,
		breach: make(chan string, 1), quit: make(chan struct{}), done: make(chan struct{}),
	}
	go w.run(a.box.look)
	return w
}

// stop ends the watch and passes on the progress that came last.
func (w *watch) stop() {
	close(w.quit)
	<-w.done
	w.progress()
}

// last says which limit stands exceeded at the end, "" if none does.
func (w *watch) last() string { return w.usage() }

func (w *watch) run(every time.Duration) {
	defer close(w.done)
	pause := every
	for {
		timer := time.NewTimer(pause)
		select {
		case <-w.quit:
			timer.Stop()
			return
		case <-timer.C:
		}
		begin := time.Now()
		w.progress()
		if what := w.exceeded(); what != "" {
			w.breach <- what
			<-w.quit
			return
		}
		pause = max(every, 10*time.Since(begin))
	}
}

func (w *watch) exceeded() string {
	info, err := w.output.Stat()
	if err == nil && info.Size() > plugin.MaxOutput {
		return fmt.Sprintf("output of more than %d bytes", plugin.MaxOutput)
	}
	return w.usage()
}

// progress passes on the progress lines that were added since the last call.
// Anything else, however wrong, is left to the end.
func (w *watch) progress() {
	if w.task.Progress == nil || w.offset > plugin.MaxOutput {
		return
	}
	raw, err := io.ReadAll(io.NewSectionReader(w.output, w.offset, plugin.MaxOutput-w.offset))
	if err != nil {
		return
	}
	for {
		line, rest, ok := bytes.Cut(raw, []byte{'\n'})
		if !ok {
			return
		}
		w.offset += int64(len(line)) + 1
		raw = rest
		if !bytes.Contains(line, []byte(`"progress"`)) {
			continue
		}
		if l, err := parseLine(line); err == nil && l.Progress != nil {
			if f, message, err := l.progress(); err == nil {
				w.task.Progress(f, message)
			}
		}
	}
}

// entryCost is what an entry of a folder counts for beside its blocks, so that
// empty files cannot be made without end.
const entryCost = 512

// usage says whether the program's folders hold more than they may.
func (w *watch) usage() string {
	limit := w.task.Limits.Workspace
	if limit <= 0 {
		return ""
	}
	var sum int64
	for _, dir := range writtenDirs() {
		err := addUsage(filepath.Join(w.task.Dir, dir), limit, &sum)
		switch {
		case errors.Is(err, syscall.ENAMETOOLONG):
			return "folders nested too deep to be measured"
		case sum > limit:
			return fmt.Sprintf("workspace of more than %d bytes", limit)
		}
	}
	return ""
}

// addUsage adds what lies below dir to sum: the blocks that files take, so that
// a sparse file counts for what it occupies. It stops beyond limit. What
// vanishes meanwhile counts for nothing.
func addUsage(dir string, limit int64, sum *int64) error {
	todo := []string{dir}
	for len(todo) > 0 {
		next := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		d, err := os.OpenFile(next, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
		if errors.Is(err, syscall.ENAMETOOLONG) {
			return err
		}
		if err != nil {
			continue
		}
		for *sum <= limit {
			list, err := d.ReadDir(256)
			for _, e := range list {
				*sum += entryCost + blocks(e)
				if e.IsDir() {
					todo = append(todo, filepath.Join(next, e.Name()))
				}
			}
			if err != nil {
				break
			}
		}
		d.Close()
		if *sum > limit {
			return nil
		}
	}
	return nil
}

func blocks(e fs.DirEntry) int64 {
	info, err := e.Info()
	if err != nil {
		return 0
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}
