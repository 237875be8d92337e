package engine

import (
	"cmp"
	"context"
	"slices"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/verify"
)

// A queue is what an import has yet to judge, in the order in which it should:
// trust first, since it may be what lets the rest in; then by kind, publisher,
// name and sequence, so that a delta comes after its base. Where two are equal,
// and for files that nobody known has signed, the path decides: never the order
// of a folder.
type queue struct {
	e     *Engine
	trust *inForce // under which the rest was looked at
	rest  []waiting
}

// waiting is a file that is yet to be judged. What its head says is read before
// it is judged, and decides about nothing but the order.
type waiting struct {
	path                  string
	known                 bool // somebody whom trust names has signed the head
	kind, publisher, name string
	sequence              int64
}

// newQueue looks at the heads of files.
func (e *Engine) newQueue(ctx context.Context, files []string) (*queue, error) {
	q := &queue{e: e}
	for _, path := range files {
		q.rest = append(q.rest, waiting{path: path})
	}
	return q, q.look(ctx)
}

// look reads the heads that are not known under the trust in force.
func (q *queue) look(ctx context.Context) error {
	q.trust = q.e.currentTrust()
	for i := range q.rest {
		if err := ctx.Err(); err != nil {
			return err
		}
		if w := &q.rest[i]; !w.known {
			q.e.peek(q.trust.Trust, w)
		}
	}
	slices.SortFunc(q.rest, func(a, b waiting) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(a.publisher, b.publisher), cmp.Compare(a.name, b.name),
			cmp.Compare(a.sequence, b.sequence), cmp.Compare(a.path, b.path))
	})
	return nil
}

// rank puts what others may need first.
func (w waiting) rank() int {
	switch {
	case !w.known:
		return 4
	case w.kind == string(manifests.KindTrust):
		return 0
	case w.kind == string(manifests.KindDAG):
		return 2
	case w.kind == string(manifests.KindSecrets):
		return 3
	}
	return 1
}

// peek reads the head of one file. Only what somebody known has signed is
// parsed. What cannot be read is found out again when it is judged.
func (e *Engine) peek(t *verify.Trust, w *waiting) {
	f, err := fsx.OpenRegular(w.path)
	if err != nil {
		return
	}
	defer f.Close()
	head, err := bundle.NewReader(f, bundle.Limits{Bytes: e.site.MaxBundleBytes}).Head()
	if err != nil {
		return
	}
	if _, err := t.Signatures(head.Manifest, head.Signatures, e.opt.Now()); err != nil {
		return
	}
	m, err := manifests.ParseBundle(bundle.ManifestName, head.Manifest)
	if err != nil {
		return
	}
	w.known, w.kind, w.publisher, w.name, w.sequence = true, string(m.Kind), m.Publisher, m.Name, m.Sequence
}

// next takes the first file out; false when there is none. When trust has
// changed, what nobody known had signed is looked at again.
func (q *queue) next(ctx context.Context) (waiting, bool, error) {
	if len(q.rest) > 0 && q.trust != q.e.currentTrust() {
		if err := q.look(ctx); err != nil {
			return waiting{}, false, err
		}
	}
	if len(q.rest) == 0 {
		return waiting{}, false, nil
	}
	w := q.rest[0]
	q.rest = q.rest[1:]
	return w, true, nil
}
