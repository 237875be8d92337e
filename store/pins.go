package store

import "time"

// Pins keep a collection of garbage away from blobs that somebody is about to
// name in an entry. A quarantine pins what it holds and what it relies on until
// it is discarded. What is put without one is pinned for pinFor at least, which
// is longer than it takes to write the entry. A collection dooms blobs that
// nobody pins: from then on they count as absent, so that whoever needs one
// brings its bytes again, which saves it.
type pins struct {
	held       map[string]int // by quarantines
	young, old map[string]struct{}
	turned     time.Time // when young became old; monotonic
	doomed     map[string]struct{}
}

// pinFor is how long a blob that was put is pinned, at least.
const pinFor = time.Hour

func newPins() pins {
	return pins{held: map[string]int{}, young: map[string]struct{}{}, doomed: map[string]struct{}{}, turned: time.Now()}
}

// recent pins a digest for a while.
func (p *pins) recent(digest string) {
	if now := time.Now(); now.Sub(p.turned) > pinFor {
		p.old, p.young, p.turned = p.young, map[string]struct{}{}, now
	}
	p.young[digest] = struct{}{}
}

// pinned says whether somebody relies on a digest.
func (p *pins) pinned(digest string) bool {
	_, young := p.young[digest]
	_, old := p.old[digest]
	return young || old || p.held[digest] > 0
}

// hold pins a digest for as long as the quarantine lives. It is false when the
// blob is doomed: then it must be brought again.
func (q *Quarantine) hold(digest string) bool {
	b := q.blobs
	b.mu.Lock()
	defer b.mu.Unlock()
	if !q.pinned[digest] {
		q.pinned[digest] = true
		b.pins.held[digest]++
	}
	_, doomed := b.pins.doomed[digest]
	return !doomed
}

// release lets go of everything that q has pinned.
func (q *Quarantine) release() {
	b := q.blobs
	b.mu.Lock()
	defer b.mu.Unlock()
	for digest := range q.pinned {
		if b.pins.held[digest]--; b.pins.held[digest] <= 0 {
			delete(b.pins.held, digest)
		}
	}
	q.pinned = map[string]bool{}
}

// pinRecent pins what is about to be put.
func (b *Blobs) pinRecent(digest string) {
	b.mu.Lock()
	b.pins.recent(digest)
	b.mu.Unlock()
}

// Doom marks blobs as going away, all but those that somebody has pinned, which
// it returns. [Blobs.Trash] takes the others away; [Blobs.Spare] changes its
// mind.
func (b *Blobs) Doom(digests []string) (pinned []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range digests {
		if b.pins.pinned(d) {
			pinned = append(pinned, d)
			continue
		}
		b.pins.doomed[d] = struct{}{}
		delete(b.known, d)
		delete(b.small.known, d)
	}
	return pinned
}

// Spare takes doomed blobs back.
func (b *Blobs) Spare(digests []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range digests {
		delete(b.pins.doomed, d)
	}
}

// wanted says whether somebody is about to name a blob.
func (b *Blobs) wanted(digest string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pins.pinned(digest)
}
