package engine

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
	"github.com/stellarun/stella/verify"
)

// Bundles that are admitted together: so many, or so many bytes of containers,
// whichever comes first. Their syncs and their transaction are shared. Nobody
// is told that one is admitted before all of them are on disk.
const (
	togetherFiles = 64
	togetherBytes = 16 << 20
)

const maxCarrier = 256

// ImportMedia judges all bundles that paths name or contain and seals those
// that it admits. What becomes of one decides nothing about another. It can be
// repeated at any time: what is admitted already is judged anew, and is not
// copied. watch may be nil. With an error the report says how far it came.
func (s *site) ImportMedia(ctx context.Context, req api.MediaRequest, watch func(api.MediaEvent)) (api.MediaReport, error) {
	if err := checkCarrier(req.Carrier); err != nil {
		return api.MediaReport{}, err
	}
	g, err := gather(req.Paths)
	if err != nil {
		return api.MediaReport{}, err
	}
	if len(g.files) == 0 {
		return api.MediaReport{}, g.nothing(req.Paths)
	}
	in := &intake{s: s, req: req, watch: watch, gathered: g, started: s.e.opt.Now()}
	in.out = api.MediaReport{DryRun: req.DryRun, Imports: []api.ImportItem{}, Skipped: g.skipped, Media: mediaOf(req.Paths)}
	if in.out.Skipped == nil {
		in.out.Skipped = []api.Skipped{}
	}
	err = in.run(ctx)
	if rerr := in.receipt(err != nil); err == nil {
		err = rerr
	}
	if in.out.Admitted+in.out.Again > 0 && !req.DryRun {
		s.e.copyHead()
	}
	in.out.Warnings = s.e.warnings()
	return in.out, err
}

func checkCarrier(carrier string) error {
	if len(carrier) > maxCarrier || !utf8.ValidString(carrier) {
		return invalid("a carrier is named in at most %d bytes of UTF-8", maxCarrier)
	}
	for _, r := range carrier {
		if !unicode.IsPrint(r) {
			return invalid("the carrier %q has characters that cannot be printed", carrier)
		}
	}
	return nil
}

// intake is one import of media under way.
type intake struct {
	s        *site
	req      api.MediaRequest
	watch    func(api.MediaEvent)
	gathered *gathering
	started  time.Time
	out      api.MediaReport

	at      int                        // number of the file at hand
	waiting []*awaiting                // judged, and not admitted yet
	bytes   int64                      // of their containers
	fatal   error                      // what ends the import
	brought map[string]map[string]bool // with a dry run: publisher/name → contents that would be here by now
}

// run judges file by file.
func (in *intake) run(ctx context.Context) error {
	q, err := in.s.e.newQueue(ctx, in.gathered.files)
	if err != nil {
		return err
	}
	for in.fatal == nil {
		w, ok, err := q.next(ctx)
		if err != nil {
			in.fatal = err
			break
		}
		if !ok {
			break
		}
		in.at++
		if err := ctx.Err(); err != nil {
			in.fatal = err
		} else {
			in.take(ctx, w)
		}
		if in.fatal != nil && !in.listed(w.path) {
			q.rest = append([]waiting{w}, q.rest...)
		}
		if in.req.FailFast && in.out.Refused+in.out.Failed > 0 {
			break
		}
	}
	in.flush(ctx)
	for _, w := range q.rest {
		in.out.Imports = append(in.out.Imports, itemOf(w.path, api.OutcomeNotTried, nil, nil, nil))
	}
	return in.fatal
}

// listed says whether it is known what came of a file, or will be.
func (in *intake) listed(path string) bool {
	for _, b := range in.waiting {
		if b.path == path {
			return true
		}
	}
	for i := range in.out.Imports {
		if in.out.Imports[i].Path == valid(path) {
			return true
		}
	}
	return false
}

// take judges one file. It is admitted at once, or with others a little later.
func (in *intake) take(ctx context.Context, w waiting) {
	progress := func(done, total int64) { in.tell(api.MediaEvent{Path: valid(w.path), Done: done, Total: total}) }
	in.tell(api.MediaEvent{Path: valid(w.path)})
	if in.req.DryRun {
		in.rehearse(ctx, w.path, progress)
		return
	}
	if in.fatal = in.s.e.enter(ctx); in.fatal != nil {
		return
	}
	q, res, j, err := in.s.judgeFile(ctx, api.ImportRequest{Path: w.path}, progress, in.before(ctx))
	in.s.e.leave()
	if err != nil {
		in.flush(ctx) // what was judged before is told before
	}
	var known *knownError
	if errors.As(err, &known) {
		in.settle(ctx, &awaiting{path: w.path, res: res}, known.out, nil)
		return
	}
	if err != nil {
		in.missed(ctx, w.path, res, err)
		return
	}
	b := &awaiting{path: w.path, q: q, res: res, j: j}
	switch res.Manifest.Kind {
	case manifests.KindPlugin, manifests.KindDAG, manifests.KindData:
		in.waiting, in.bytes = append(in.waiting, b), in.bytes+res.FileBytes
		if len(in.waiting) >= togetherFiles || in.bytes >= togetherBytes {
			in.flush(ctx)
		}
		return
	}
	in.flush(ctx)
	out, err := in.s.admit(q, res, j)
	q.Discard()
	in.settle(ctx, b, out, err)
}

// before is called when a manifest is about to be held against the site: what
// was judged and waits must be admitted if it has to do with it.
func (in *intake) before(ctx context.Context) func(*manifests.Bundle) {
	return func(m *manifests.Bundle) {
		for _, b := range in.waiting {
			if b.res.Manifest.Publisher == m.Publisher && b.res.Manifest.Name == m.Name {
				in.flush(ctx)
				return
			}
		}
	}
}

// flush admits what waits, together; if that cannot be, one by one.
func (in *intake) flush(ctx context.Context) {
	all := in.waiting
	in.waiting, in.bytes = nil, 0
	if len(all) == 0 {
		return
	}
	outs, err := in.s.admitAll(all)
	for _, b := range all {
		b.q.Discard()
	}
	for i, b := range all {
		if err != nil {
			in.settle(ctx, b, api.ImportResult{}, err)
			continue
		}
		in.settle(ctx, b, outs[i], nil)
	}
}

// settle notes what came of a bundle that was judged. Where trust or a floor
// moved meanwhile, it is judged again, by itself.
func (in *intake) settle(ctx context.Context, b *awaiting, out api.ImportResult, err error) {
	if moved(err) {
		out, err = in.s.importOne(ctx, api.ImportRequest{Path: b.path}, nil)
	}
	if err != nil {
		in.missed(ctx, b.path, b.res, dbError(err))
		return
	}
	in.add(itemOf(b.path, api.OutcomeAdmitted, b.res, &out, nil))
}

// rehearse judges one file and keeps nothing.
func (in *intake) rehearse(ctx context.Context, path string, p api.Progress) {
	e := in.s.e
	if in.fatal = e.enter(ctx); in.fatal != nil {
		return
	}
	now, err := e.clock()
	if err != nil {
		in.fatal = err
		e.leave()
		return
	}
	res, err := e.verifyFile(ctx, path, now, func(publisher, name string) map[string]bool {
		return in.brought[publisher+"/"+name]
	}, p)
	e.leave()
	if err != nil {
		in.missed(ctx, path, res, err)
		return
	}
	out := api.ImportResult{Verdict: *res.Verdict, Bytes: res.FileBytes}
	if _, err := e.db.Bundle(res.Digest); err == nil {
		out.Already = true
	} else if !store.IsNotFound(err) {
		in.fatal = dbError(err)
		return
	}
	in.bring(res.Manifest)
	in.add(itemOf(path, api.OutcomeAdmitted, res, &out, nil))
}

// bring notes, for deltas that come later in a dry run, what would be here.
func (in *intake) bring(m *manifests.Bundle) {
	key := m.Publisher + "/" + m.Name
	if in.brought == nil {
		in.brought = map[string]map[string]bool{}
	}
	if in.brought[key] == nil {
		in.brought[key] = map[string]bool{}
	}
	for _, f := range m.Files {
		in.brought[key][f.SHA256] = true
	}
}

// missed notes that a file was not admitted, or that nothing more can be.
func (in *intake) missed(ctx context.Context, path string, res *verify.Result, err error) {
	var known *api.Error
	if ctx.Err() != nil && (!errors.As(err, &known) || known.Refusal == nil) {
		in.fatal = ctx.Err()
		return
	}
	if !errors.As(err, &known) {
		known = internal(fmt.Errorf("%s: %w", path, err))
	}
	outcome := api.OutcomeFailed
	if known.Refusal != nil {
		outcome = api.OutcomeRefused
	}
	if in.s.e.db.Failure() != nil || known.Code == api.CodeStopping || known.Code == api.CodeClockBehind || known.Code == api.CodeClockAhead {
		in.fatal = known // it would be so with every file
	}
	in.add(itemOf(path, outcome, res, nil, known))
}

// itemOf is what came of a file, in the spelling that leaves this process. res
// may be nil.
func itemOf(path, outcome string, res *verify.Result, out *api.ImportResult, err *api.Error) api.ImportItem {
	item := api.ImportItem{Path: valid(path), Outcome: outcome, ImportResult: out, Error: err}
	if res != nil {
		item.SHA256, item.Size = hashOfRead(res), res.FileSize()
	}
	if err != nil && valid(err.Message) != err.Message {
		e := *err
		e.Message = valid(err.Message)
		item.Error = &e
	}
	return item
}

// add counts an item and tells whoever watches.
func (in *intake) add(item api.ImportItem) {
	switch {
	case item.Outcome == api.OutcomeRefused:
		in.out.Refused++
	case item.Outcome == api.OutcomeFailed:
		in.out.Failed++
	case item.Already:
		in.out.Again++
	default:
		in.out.Admitted++
	}
	in.out.Imports = append(in.out.Imports, item)
	in.tell(api.MediaEvent{Path: item.Path, Item: &item})
}

func (in *intake) tell(e api.MediaEvent) {
	if in.watch != nil {
		e.File, e.Files = in.at, len(in.gathered.files)
		in.watch(e)
	}
}
