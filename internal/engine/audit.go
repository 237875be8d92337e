package engine

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
)

// maxFindings bounds how many findings one audit lists; the rest is counted.
const maxFindings = 10_000

// AuditStorage hashes everything sealed and compares it with what the ledger
// names. It changes nothing.
func (s *site) AuditStorage(ctx context.Context, p api.Progress) (api.AuditReport, error) {
	e := s.e
	begun := time.Now()
	out := api.AuditReport{Findings: []api.Finding{}}
	rep, err := e.db.Audit(ctx, store.AuditOptions{
		Progress: p,
		LogPath:  func(digest string) string { return runner.LogPath(filepath.Join(e.opt.Home, "logs"), digest) },
		Report: func(f store.Finding) {
			if f.Kind.Damage() {
				out.Damage++
			}
			if len(out.Findings) == maxFindings {
				out.More++
				return
			}
			out.Findings = append(out.Findings, e.finding(f))
		},
	})
	if err != nil {
		return api.AuditReport{}, dbError(err)
	}
	out.Blobs, out.Bytes, out.Named, out.Millis = rep.Blobs, rep.Bytes, rep.Named, time.Since(begun).Milliseconds()
	return out, nil
}

func (e *Engine) finding(f store.Finding) api.Finding {
	out := api.Finding{
		Kind: string(f.Kind), Damage: f.Kind.Damage(), Path: f.Path, SHA256: f.Digest, Size: f.Size, Detail: f.Detail,
		What: f.Ref.What, Seq: f.Ref.Seq, Bundle: f.Ref.From,
	}
	path := filepath.Join(e.opt.Home, f.Path)
	switch {
	case f.Kind == store.FindGarbage:
		out.Fix = "stella bundle gc takes it away"
	case f.Kind == store.FindAway:
		out.Fix = "none is needed; to read what is in it, bring it back into archives/ of the home, under any name, where it can be read"
	case f.Kind == store.FindCorrupt && filepath.Dir(f.Path) == "archives":
		out.Fix = "put a good copy into archives/, under any name, then remove this file"
	case f.Kind == store.FindMode:
		out.Fix = fmt.Sprintf("chmod 0444 %q; find out who changed it", path)
	case f.Kind == store.FindFolder:
		out.Fix = fmt.Sprintf("chmod 0555 %q, or import something that lies in it", path)
	case f.Kind == store.FindForeign:
		out.Fix = "find out who put it there, and remove it: nothing of stella looks at it"
	case f.Ref.From != "":
		out.Fix = fmt.Sprintf("stella bundle import of %s again puts it right", f.Ref.From)
	default:
		out.Fix = "no bundle brings it: put it back from a copy of the home"
	}
	return out
}
