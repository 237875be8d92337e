package export

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/ledger"
)

// Forms of views.
const (
	ViewCSV  = "csv"  // tables for people and spreadsheets
	ViewOCSF = "ocsf" // events for security tools
)

// ErrNoView is why no view was made of an archive: it does not hold. The report says
// what. It comes wrapped.
var ErrNoView = errors.New("no view is made of an archive that does not hold")

// View is a view that was written.
type View struct {
	Path           string     `json:"path"`
	Format         string     `json:"format"`
	Verdict        Verdict    `json:"verdict"` // of the archive
	ManifestSHA256 string     `json:"manifestSha256"`
	Window         Window     `json:"window"`
	Files          []ViewFile `json:"files"`
	// LeftOut are runs that nobody can fold, since data of theirs is withheld, or a
	// newer stella wrote some of it.
	LeftOut int `json:"leftOut"`
}

// ViewFile is one of its files. Records do not count the line of names in a table.
type ViewFile struct {
	Path    string `json:"path"`
	Records int64  `json:"records"`
	Bytes   int64  `json:"bytes"`
	SHA256  string `json:"sha256"`
}

// WriteView judges the archive at path, as [Verify] does, and writes what its ledger
// says in another form to the new folder dir. The same archive gives the same bytes,
// whatever the keys. The folder is whole or not there.
//
// An archive that failed a check, or that is by other keys than those that were given,
// is [ErrNoView]; the report is returned with it.
func WriteView(ctx context.Context, path, format, dir string, opt VerifyOptions) (*View, *Report, error) {
	open := newTables
	switch format {
	case ViewCSV:
	case ViewOCSF:
		open = newEvents
	default:
		return nil, nil, fmt.Errorf("export: there is no view %q", format)
	}
	v, err := judged(ctx, path, opt)
	if err != nil {
		return nil, nil, err
	}
	defer v.release()
	if v.report.Verdict == Failed || v.report.Verdict == Unauthenticated && v.anyForeign() {
		return nil, &v.report, fmt.Errorf("export: it is %s: %w", v.report.Verdict, ErrNoView)
	}
	out := &View{Path: dir, Format: format, Verdict: v.report.Verdict, ManifestSHA256: v.listed[manifestPath], Window: v.m.Window}
	f, err := newViewFolder(dir, v)
	if err != nil {
		return nil, nil, err
	}
	defer f.discard()
	if err := f.write(out, open); err != nil {
		return nil, nil, err
	}
	return out, &v.report, f.commit()
}

// anyForeign says whether a key that was given is not the archive's.
func (v *verifier) anyForeign() bool {
	for _, is := range v.foreign {
		if is {
			return true
		}
	}
	return false
}

// sink takes the ledger of an archive: every entry of the window, then every run.
type sink interface {
	entry(e entry) error
	run(s *story) error
}

// viewFolder is the folder of a view in the making, beside where it will be.
type viewFolder struct {
	dir, temp string
	v         *verifier
	files     []*viewWriter
}

func newViewFolder(dir string, v *verifier) (*viewFolder, error) {
	if _, err := os.Lstat(dir); err == nil {
		return nil, &fs.PathError{Op: "create", Path: dir, Err: fs.ErrExist}
	}
	temp, err := os.MkdirTemp(filepath.Dir(dir), ".stella-view-*")
	if err != nil {
		return nil, err
	}
	return &viewFolder{dir: dir, temp: temp, v: v}, nil
}

// discard removes what was not committed.
func (f *viewFolder) discard() {
	for _, w := range f.files {
		_ = w.f.Close() // after a commit it does nothing
	}
	if f.temp != "" {
		_ = os.RemoveAll(f.temp) // it was nobody's yet
	}
}

// commit gives the folder its name.
func (f *viewFolder) commit() error {
	for _, w := range f.files {
		if err := w.f.Commit(); err != nil {
			return err
		}
	}
	if err := errors.Join(os.Chmod(f.temp, 0o755), fsx.SyncDir(f.temp)); err != nil {
		return err
	}
	if err := fsx.Rename(f.temp, f.dir); err != nil {
		return err
	}
	f.temp = ""
	return nil
}

// write fills the folder.
func (f *viewFolder) write(out *View, open func(*viewFolder) (sink, error)) error {
	to, err := open(f)
	if err != nil {
		return err
	}
	if err := f.v.eachEntry(to.entry); err != nil {
		return err
	}
	if out.LeftOut, err = f.v.eachRun(to.run); err != nil {
		return err
	}
	for _, w := range f.files {
		if err := w.flush(); err != nil {
			return err
		}
	}
	readme, err := f.create("README.txt")
	if err != nil {
		return err
	}
	if _, err := io.WriteString(readme, viewReadme(out, f.v.m)); err != nil {
		return err
	}
	for _, w := range f.files {
		out.Files = append(out.Files, ViewFile{w.path, w.records, w.n, w.digest()})
	}
	return nil
}

// viewWriter is one file of a view.
type viewWriter struct {
	counter
	path    string
	f       *fsx.File
	records int64
	flush   func() error
}

func (f *viewFolder) create(name string) (*viewWriter, error) {
	file, err := fsx.Create(filepath.Join(f.temp, name), fsx.ByUmask(0o666))
	if err != nil {
		return nil, err
	}
	w := &viewWriter{counter: counter{w: file, sum: sha256.New()}, path: name, f: file, flush: func() error { return nil }}
	f.files = append(f.files, w)
	return w, nil
}

// eachEntry reads the entries of an archive that was judged.
func (v *verifier) eachEntry(see func(entry) error) error {
	envelopes, done, err := v.lines(envelopesPath)
	if err != nil {
		return err
	}
	defer done()
	data, done2, err := v.lines(dataPath)
	if err != nil {
		return err
	}
	defer done2()
	for {
		envelope, err := envelopes.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		var line []byte
		if err == nil {
			line, err = data.next()
		}
		if err != nil {
			return fmt.Errorf("export: %w", err)
		}
		e, err := parseEntry(envelope, line)
		if err == nil {
			err = see(e)
		}
		if err != nil {
			return fmt.Errorf("export: entry %d: %w", e.Envelope.Seq, err)
		}
	}
}

// eachRun reads its runs, and counts those that nobody can fold.
func (v *verifier) eachRun(see func(*story) error) (leftOut int, err error) {
	lines, done, err := v.lines(runsPath)
	if err != nil {
		return 0, err
	}
	defer done()
	for {
		line, err := lines.next()
		if errors.Is(err, io.EOF) {
			return leftOut, nil
		}
		if err != nil {
			return 0, fmt.Errorf("export: %w", err)
		}
		var in runLine
		if err := json.Unmarshal(line, &in); err != nil {
			return 0, fmt.Errorf("export: %s:%d: %w", runsPath, lines.n, err)
		}
		s := &story{runID: in.RunID}
		hidden := in.Run == nil
		for _, ev := range in.Events {
			e, err := parseEntry(bytes.Clone(ev.Envelope), bytes.Clone(ev.Data))
			if err == nil {
				err = s.add(e)
			}
			if err != nil {
				return 0, fmt.Errorf("export: %s:%d: %w", runsPath, lines.n, err)
			}
			hidden = hidden || e.unknown
		}
		if hidden {
			leftOut++
			continue
		}
		if err := see(s); err != nil {
			return 0, fmt.Errorf("export: run %s: %w", s.runID, err)
		}
	}
}

// viewReadme says what a view is. It does not say how the archive was judged: that
// depends on the keys of whoever asked.
func viewReadme(out *View, m *Manifest) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, `These files prove nothing. They were derived from a stella archive, and anybody can
write files like them. What proves something is the archive: stella export verify.

origin         %s
window         %s to %s
entries        %d from %d, of a tree of %d with the root %s
archive        manifest.json has the SHA-256 %s
`, m.Origin, out.Window.From, out.Window.To, m.Ledger.Count, m.Ledger.FirstSeq, m.Ledger.TreeSize, m.Ledger.Root, out.ManifestSHA256)
	if n := len(m.Withheld); n > 0 {
		fmt.Fprintf(&b, "withheld       %d things that the ledger names are not in the archive\n", n)
	}
	if out.LeftOut > 0 {
		fmt.Fprintf(&b, "left out       %d runs, of which the archive does not hold all data, or a newer stella wrote some\n", out.LeftOut)
	}
	b.WriteString(viewForm(out.Format))
	return b.String()
}

// viewForm says what the files of a form are.
func viewForm(format string) string {
	if format == ViewOCSF {
		return `
One event of OCSF ` + ocsfVersion + ` a line, for each entry of the window. metadata.sequence is the
number of the entry, unmapped.dataHash what its envelope says of its data, unmapped.data
that data. The ledger has no classes and severities: those are an interpretation.
`
	}
	return `
CSV as in RFC 4180, UTF-8, a record a line, names in the first. A cell that would begin
with = + - @ or ' begins with a ' more, so that no spreadsheet takes it for a formula:
take it off to have the value. Control and direction characters are written as \uXXXX.
entries.csv has the window's entries, the exact data of each in its last column but one;
runs.csv, steps.csv and attempts.csv have what the entries of each run, from its first
to the window's end, fold to.
`
}

// dataOf is the data of an entry as it stands in its line; nil if it is withheld.
func (e entry) dataOf() (json.RawMessage, error) {
	if e.withheld != "" {
		return nil, nil
	}
	line, err := ledger.ParseData(e.data)
	return line.Data, err
}
