package runner

import "fmt"

// CouldRun names what waits although nothing keeps it from running.
func (r *Runner) CouldRun() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	_, all := r.queue.stopped.Paused[""]
	if r.start == nil || r.free == 0 || all {
		return nil
	}
	var waiting []item
	r.queue.each(r.execs, func(it item) { waiting = append(waiting, it) })
	for _, it := range waiting {
		if r.queue.couldRun(it) {
			out = append(out, fmt.Sprintf("%s of %s", it.n.id, it.e.runID))
		}
	}
	return out
}

func (q *queue) couldRun(it item) bool {
	if q.closed(it.e.tenant, q.lane(it.e.tenant)) {
		return false
	}
	for _, n := range q.needs(it) {
		if h := n.line(it.e.tenant).head(); h != nil && h.n == it.n && n.weight <= n.capacity-n.taken {
			continue
		}
		if !n.admits(it, n.weight) {
			return false
		}
	}
	return true

}
