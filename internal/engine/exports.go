package engine

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/internal/background"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
	"github.com/stellarun/stella/verify"
)

// source is the site as package export reads it.
type source struct {
	e    *Engine
	away awayFiles
	pace *store.Pace
}

func (s source) ReadHashes(indexes []int64) ([]ledger.Hash, error) { return s.e.db.ReadHashes(indexes) }

func (s source) Size() int64 { return s.e.db.Size() }

func (s source) Entries(from, to int64) iter.Seq2[export.Entry, error] {
	return s.entries(s.e.db.Entries(from, to))
}

func (s source) RunEntries(runID string) iter.Seq2[export.Entry, error] {
	return s.entries(s.e.db.RunEntries(runID))
}

func (s source) entries(lines iter.Seq2[store.Lines, error]) iter.Seq2[export.Entry, error] {
	return func(yield func(export.Entry, error) bool) {
		for l, err := range lines {
			s.pace.Step()
			e := export.Entry{Seq: l.Seq, Envelope: l.Envelope, Data: l.Data}
			if l.Erased() {
				e.Withheld = "erased"
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

func (s source) FirstAtOrAfter(at string) (int64, error) { return s.e.db.FirstAtOrAfter(at) }

func (s source) CheckpointCovering(seq int64) ([]byte, error) {
	note, _, err := s.e.db.CheckpointCovering(seq)
	if store.IsNotFound(err) {
		return nil, nil
	}
	return note, err
}

func (s source) Blob(digest string) (io.ReadCloser, error) {
	return s.paced(s.e.db.Blobs().Open(digest))
}

func (s source) LogSegment(digest string) (io.ReadCloser, error) {
	f, err := s.e.segment(digest)
	if s.away.note(err) {
		return nil, &export.WithheldError{Reason: withheldArchived}
	}
	return s.paced(f, err)
}

// paced reads a file piece by piece.
func (s source) paced(r io.ReadCloser, err error) (io.ReadCloser, error) {
	if err != nil {
		return nil, err
	}
	return pacedFile{r, s.pace}, nil
}

type pacedFile struct {
	io.ReadCloser
	pace *store.Pace
}

func (f pacedFile) Read(p []byte) (int, error) {
	f.pace.Step()
	return f.ReadCloser.Read(p)
}

// withheldArchived is why an export does not have a log segment whose archive is not here.
// It reaches archives.
const withheldArchived = "archived"

// CreateExport writes the archive of a window and records it.
func (s *site) CreateExport(ctx context.Context, req api.ExportRequest, p api.Progress) (api.ExportResult, error) {
	e := s.e
	win, err := e.window(req)
	if err != nil {
		return api.ExportResult{}, err
	}
	if !filepath.IsAbs(req.Path) {
		return api.ExportResult{}, invalid("the path of an export must be absolute: %s", req.Path)
	}
	req.Path = filepath.Clean(req.Path) // the system goes through a link before "..", and what looks at the text of a path does not
	if req.Mode&^0o666 != 0 {
		return api.ExportResult{}, invalid("mode %#o of an archive: only 0666 and less", req.Mode)
	}
	keys, err := export.Recipients(req.EncryptTo)
	if err != nil {
		return api.ExportResult{}, exportError(err)
	}
	if len(keys) != len(req.EncryptTo) { // else it would be written in the clear
		return api.ExportResult{}, invalid("one of the keys to encrypt to is empty")
	}
	req.EncryptTo = keys
	if len(req.EncryptTo) > 0 && !strings.HasSuffix(req.Path, export.EncryptedSuffix) {
		req.Path += export.EncryptedSuffix
	}
	if err := e.outside("an archive", req.Path); err != nil {
		return api.ExportResult{}, err
	}
	if err := free(req); err != nil {
		return api.ExportResult{}, err
	}
	away := awayFiles{}
	m, err := e.export(ctx, win, req, away, p)
	if errors.Is(err, export.ErrNoCheckpoint) {
		if _, err := e.issueCheckpoint(); err != nil {
			return api.ExportResult{}, err
		}
		clear(away)
		m, err = e.export(ctx, win, req, away, p)
	}
	if err != nil {
		return api.ExportResult{}, exportError(err)
	}
	defer m.out.Close()
	seq, err := e.place(m, req, s.actor)
	if err != nil {
		return api.ExportResult{}, err
	}
	out := showExport(m.res.ExportCreation)
	out.Seq, out.Path, out.Bytes, out.EncryptedTo = seq, req.Path, m.res.Bytes, req.EncryptTo
	out.Away = away.list()
	for _, part := range m.out.Parts() {
		out.Parts = append(out.Parts, api.ExportPart(part))
	}
	return out, nil
}

// place records an archive that is on disk, and gives it its name; of two that are made for one
// path at once, the second finds the first. The entry comes before: whatever ends this in between,
// what leaves a site is on record.
func (e *Engine) place(m *made, req api.ExportRequest, actor string) (seq int64, err error) {
	e.placing.Lock()
	defer e.placing.Unlock()
	if err := free(req); err != nil {
		return 0, err
	}
	if seq, err = e.db.Append(ledger.ExportCreated, actor, &m.res.ExportCreation); err != nil {
		return 0, dbError(err)
	}
	return seq, unplaced(m.out.Commit(), seq)
}

// unplaced says what has become of an archive that is on record.
func unplaced(err error, seq int64) error {
	var out *export.OutputError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &out):
		return adding(exportError(err), "entry %d says that the archive was made; make it again", seq)
	case out.Placed && out.Left != "":
		return adding(outputError(err), "the archive is there; remove %s, which is not of it", out.Left)
	case out.Placed:
		return adding(outputError(err), "the archive is there, and may not survive a power cut: make it again with --force")
	case out.Left != "":
		return adding(exportError(err), "entry %d says that the archive was made; make it again. What was there before is in %s", seq, out.Left)
	}
	return adding(exportError(err), "entry %d says that the archive was made; make it again", seq)
}

// free says whether an archive may take its path.
func free(req api.ExportRequest) error {
	taken, err := export.Taken(req.Path)
	switch {
	case err != nil:
		return exportError(err)
	case len(taken) > 0 && !req.Force:
		return pathTaken(taken[0])
	}
	return nil
}

// outside refuses a path in the home, by whatever links it leads there: what is there is the
// site's own, and what does not belong there counts as damage.
func (e *Engine) outside(what, path string) error {
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	home, herr := filepath.EvalSymlinks(e.opt.Home)
	if err != nil || herr != nil {
		return nil // nothing can be made there
	}
	if rel, err := filepath.Rel(home, dir); err == nil && filepath.IsLocal(rel) {
		return &api.Error{Code: api.CodeInvalid, Message: what + " is not written into the home of the site: " + path, Hint: "name a path elsewhere"}
	}
	return nil
}

// window fills in the ends that a request leaves open: the first entry, and
// the newest instant that is closed.
func (e *Engine) window(req api.ExportRequest) (export.Window, error) {
	w := export.Window{From: req.From, To: req.To}
	if w.From == "" {
		first, err := e.db.Entry(0)
		if err != nil {
			return w, dbError(err)
		}
		env, err := ledger.ParseEnvelope(first.Envelope)
		if err != nil {
			return w, damaged("%v", err)
		}
		w.From = env.Time
	}
	if w.To == "" {
		w.To = stamp.Format(e.db.LastTime())
	}
	for _, t := range []string{w.From, w.To} {
		if _, err := stamp.Parse(t); err != nil {
			return w, invalid("%v", err)
		}
	}
	if w.From > w.To {
		return w, invalid("the window ends (%s) before it begins (%s)", w.To, w.From)
	}
	return w, nil
}

// made is an archive that is written, and has not taken its path yet.
type made struct {
	out *export.Output
	res *export.Result
}

// export writes an archive in the form that is asked for. What is recorded of it, its
// digest above all, is about the archive itself, whatever it is wrapped in.
func (e *Engine) export(ctx context.Context, win export.Window, req api.ExportRequest, away awayFiles, p api.Progress) (*made, error) {
	out, err := export.NewOutput(req.Path, export.OutputOptions{PartBytes: req.PartBytes, Force: req.Force, Perm: fs.FileMode(req.Mode)})
	if err != nil {
		return nil, err
	}
	w, finish := io.Writer(out), func() error { return nil }
	if len(req.EncryptTo) > 0 {
		sealed, err := export.Encrypt(out, req.EncryptTo)
		if err != nil {
			return nil, errors.Join(err, out.Close())
		}
		w, finish = sealed, sealed.Close
	}
	res, err := e.archive(ctx, win, w, away, p)
	if err == nil {
		err = finish()
	}
	if err == nil {
		err = out.Finish()
	}
	if err != nil {
		return nil, errors.Join(err, out.Close())
	}
	return &made{out, res}, nil
}

// archive writes the archive of a window.
func (e *Engine) archive(ctx context.Context, win export.Window, w io.Writer, away awayFiles, p api.Progress) (*export.Result, error) {
	logPub, err := publicPEM(e.keys.logPublic())
	if err != nil {
		return nil, err
	}
	sitePub, err := publicPEM(&e.keys.site.PublicKey)
	if err != nil {
		return nil, err
	}
	return background.Do(func() (*export.Result, error) {
		return export.Create(ctx, source{e, away, e.db.Pace()}, w, export.CreateOptions{
			Window: win, LogKey: logPub, SiteKey: sitePub, Stella: e.opt.Version, Progress: p,
			TempDir: filepath.Join(e.opt.Home, "cache"),
			Sign: func(sums []byte) ([]byte, error) {
				a, err := verify.SignManifest(sums, e.keys.site)
				return a.Data, err
			},
		})
	})
}

// publicPEM is a public key as outsiders hold it.
func publicPEM(key any) ([]byte, error) {
	if k, ok := key.(ed25519.PublicKey); ok && len(k) != ed25519.PublicKeySize {
		return nil, errors.New("engine: the log key is not an Ed25519 key")
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

func pathTaken(path string) *api.Error {
	return &api.Error{Code: api.CodeConflict, Message: path + " exists", Hint: "choose another name, or --force"}
}

func exportError(err error) error {
	var d *export.DamagedError
	var out *export.OutputError
	switch {
	case errors.Is(err, export.ErrWindowOpen):
		return &api.Error{Code: api.CodeWindowOpen, Message: err.Error(), Hint: "choose an earlier --to, or leave it out"}
	case errors.Is(err, export.ErrWindow), errors.Is(err, export.ErrTooLarge), errors.Is(err, export.ErrRecipient):
		return invalid("%s", strings.TrimPrefix(err.Error(), "export: "))
	case errors.Is(err, export.ErrPartSize):
		e := invalid("%s", strings.TrimPrefix(err.Error(), "export: "))
		e.Hint = "--split takes a size such as 4GiB; FAT file systems take 4095MiB"
		return e
	case errors.Is(err, fs.ErrExist):
		var file *fs.PathError
		var name *os.LinkError
		if errors.As(err, &file) {
			return pathTaken(file.Path)
		}
		if errors.As(err, &name) {
			return pathTaken(name.New)
		}
		return dbError(err)
	case errors.As(err, &out):
		return outputError(err)
	case errors.As(err, &d):
		return damaged("%v", err)
	case noSpace(err), errors.Is(err, syscall.EFBIG):
		return spaceError(err)
	}
	return dbError(err)
}

// outputError is what the system says of the file that an archive is written to, which is not the
// site's.
func outputError(err error) error {
	switch {
	case noSpace(err):
		return &api.Error{Code: api.CodeNoSpace, Message: err.Error(), Hint: "free space where the archive goes, and make it again; --split makes parts for several media"}
	case errors.Is(err, syscall.EFBIG):
		return &api.Error{Code: api.CodeNotWritable, Message: err.Error(), Hint: "--split 4095MiB makes parts that a FAT file system takes; else " + helpsLarge}
	case among(err, syscall.ENOENT, syscall.ENOTDIR, syscall.EISDIR, syscall.ENAMETOOLONG, syscall.ELOOP, syscall.EINVAL):
		return invalid("%v", err)
	}
	return &api.Error{Code: api.CodeNotWritable, Message: err.Error(), Hint: "see to the folder that the archive goes to, and make it again"}
}

// ListExports lists the exports on record, oldest first.
func (s *site) ListExports(context.Context) ([]api.ExportResult, error) {
	recs, err := s.e.db.Exports()
	if err != nil {
		return nil, dbError(err)
	}
	out := []api.ExportResult{}
	for _, r := range recs {
		x := showExport(r.ExportCreation)
		x.Seq = r.Seq
		out = append(out, x)
	}
	return out, nil
}

func showExport(c ledger.ExportCreation) api.ExportResult {
	return api.ExportResult{
		From: c.From, To: c.To, FirstSeq: c.FirstSeq, Count: c.Count, TreeSize: c.TreeSize, Root: c.Root,
		SHA256: c.SHA256, Withheld: c.Withheld,
	}
}
