package export_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/ledger"
)

var update = flag.Bool("update", false, "write the golden file")

func TestEveryClosedWindowMakesAnArchiveThatIsVerified(t *testing.T) {
	s := busySite(t)
	for _, from := range []int{-2, 0, 1, 8, 13, 22, 23} {
		for _, to := range []int{-1, 1, 9, 14, 23} {
			if from >= to {
				continue
			}
			r := check(t, s.archive(window(from, to)), s.auditor())
			if r.Verdict != export.Verified {
				t.Errorf("window %d to %d: %s", from, to, explain(r))
			}
			if got, want := r.Summary.Ledger.Count, int64(to-max(0, from)); got != max(0, want) {
				t.Errorf("window %d to %d: %d entries", from, to, got)
			}
		}
	}
}

func TestAWindowOfOneInstantHoldsItsEntry(t *testing.T) {
	s := busySite(t)
	w := export.Window{From: second(7), To: strings.Replace(second(7), ".000000000Z", ".000000001Z", 1)}
	r := check(t, s.archive(w), s.auditor())
	if r.Verdict != export.Verified || r.Summary.Ledger.Count != 1 || r.Summary.Ledger.FirstSeq != 7 {
		t.Error(explain(r), r.Summary.Ledger)
	}
}

func TestWindowsThatAreNotClosedAreRefused(t *testing.T) {
	s := busySite(t)
	for _, tc := range []struct {
		from, to int
		want     error
	}{{0, 24, export.ErrWindowOpen}, {0, 100, export.ErrWindowOpen}, {30, 31, export.ErrWindowOpen}, {0, 23, nil}} {
		_, err := export.Create(context.Background(), s, io.Discard, s.options(window(tc.from, tc.to)))
		if !errors.Is(err, tc.want) {
			t.Errorf("%d to %d: %v, want %v", tc.from, tc.to, err, tc.want)
		}
	}
	s.notes, s.sizes = s.notes[:1], s.sizes[:1]
	if _, err := export.Create(context.Background(), s, io.Discard, s.options(window(0, 9))); !errors.Is(err, export.ErrNoCheckpoint) {
		t.Errorf("no checkpoint covers entry 9: %v", err)
	}
	if _, err := export.Create(context.Background(), s, io.Discard, s.options(window(0, 8))); err != nil {
		t.Errorf("a checkpoint covers entry 8: %v", err)
	}
	for name, w := range map[string]export.Window{
		"backwards": window(9, 4), "empty": window(4, 4), "no time": {From: "x", To: second(4)},
		"too early": {From: "0001-01-01T00:00:00.000000000Z", To: second(4)}, "too late": {From: second(4), To: "9999-01-01T00:00:00.000000000Z"},
	} {
		if _, err := export.Create(context.Background(), s, io.Discard, s.options(w)); !errors.Is(err, export.ErrWindow) {
			t.Errorf("%s: %v, want %v", name, err, export.ErrWindow)
		}
	}
}

// The bytes are a format: they may change with the schema, with package
// telemetry, and with the compressor, and never by accident.
func TestTheArchiveIsTheSameEverywhereAndAlways(t *testing.T) {
	s := busySite(t)
	want := s.archive(window(4, 20))
	path := filepath.Join("testdata", "archive.sha256")
	if *update {
		if err := os.WriteFile(path, []byte(digest(want)+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := digest(want) + "\n"; got != string(golden) {
		t.Errorf("the archive is another than the golden one: %s, want %s", got, golden)
	}

	zone, procs := time.Local, runtime.GOMAXPROCS(0)
	t.Cleanup(func() { time.Local = zone; runtime.GOMAXPROCS(procs) })
	for i, name := range []string{"Asia/Kolkata", "America/St_Johns"} {
		loc, err := time.LoadLocation(name)
		if err != nil {
			t.Skip("no zones on this machine: ", err)
		}
		time.Local = loc
		runtime.GOMAXPROCS(1 + 3*i)
		again := busySite(t)
		again.add(again.run(ledger.RunCancelRequested, runC), &ledger.Note{}) // the ledger goes on
		again.checkpoint()
		if got := again.archive(window(4, 20)); !bytes.Equal(got, want) {
			t.Errorf("in %s with %d processors the archive is another", name, 1+3*i)
		}
	}
}

// A stored note may have been cosigned since; that travels beside the archive.
func TestCosignaturesStayOutside(t *testing.T) {
	s := busySite(t)
	want := s.archive(window(4, 20))
	s.notes[1] = append(bytes.Clone(s.notes[1]), "— witness.example AAAAAAAAAA==\n"...)
	if got := s.archive(window(4, 20)); !bytes.Equal(got, want) {
		t.Error("a cosignature changed the archive")
	}
}

func TestNothingStaysBehindInTheTemporaryFolder(t *testing.T) {
	s := busySite(t)
	opt := s.options(window(4, 20))
	for _, out := range []io.Writer{io.Discard, failing{}} {
		_, err := export.Create(context.Background(), s, out, opt)
		if _, broken := out.(failing); broken != errors.Is(err, errBroken) {
			t.Fatalf("Create = %v", err)
		}
	}
	left, err := os.ReadDir(opt.TempDir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

type failing struct{}

var errBroken = errors.New("broken pipe")

func (failing) Write([]byte) (int, error) { return 0, errBroken }

func TestCreateEndsWithItsContext(t *testing.T) {
	s := busySite(t)
	ctx, cancel := context.WithCancel(context.Background())
	opt := s.options(window(4, 20))
	opt.Progress = func(done, total int64) {
		if done == total/2 {
			cancel()
		}
	}
	if _, err := export.Create(ctx, s, io.Discard, opt); !errors.Is(err, context.Canceled) {
		t.Errorf("Create = %v, want %v", err, context.Canceled)
	}
}

func TestResultIsTheArchives(t *testing.T) {
	s := busySite(t)
	var out bytes.Buffer
	got, err := export.Create(context.Background(), s, &out, s.options(window(4, 20)))
	if err != nil {
		t.Fatal(err)
	}
	c, err := ledger.ParseCheckpoint(s.notes[1])
	if err != nil {
		t.Fatal(err)
	}
	want := &export.Result{Bytes: int64(out.Len()), ExportCreation: ledger.ExportCreation{
		From: second(4), To: second(20), FirstSeq: 4, Count: 16, TreeSize: 21, Root: ledger.HexHash(c.Root),
		Manifest: digest(takeApart(t, s, out.Bytes()).files["manifest.json"]), SHA256: digest(out.Bytes()),
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Evidence that was decided away is declared, and the auditor is told.
func TestWithheldThingsMakeAnArchiveIncomplete(t *testing.T) {
	for name, hide := range map[string]func(s *site){
		"data of a run":         func(s *site) { s.entries[7].Data, s.entries[7].Withheld = nil, "erased" },
		"data of an admission":  func(s *site) { s.entries[1].Data, s.entries[1].Withheld = nil, "decided" },
		"data of entry 0":       func(s *site) { s.entries[0].Data, s.entries[0].Withheld = nil, "decided" },
		"data of a run's start": func(s *site) { s.entries[4].Data, s.entries[4].Withheld = nil, "gdpr-17" },
		"a sealed file":         func(s *site) { s.gone[s.blob("plan")] = "collected" },
		"a log segment":         func(s *site) { s.gone[s.segment("try 1", "oh no \x00\u2028").SHA256] = "archived" },
	} {
		t.Run(name, func(t *testing.T) {
			s := busySite(t)
			if name == "a log segment" {
				s.at = start.Add(7 * time.Second) // so that the segment is made again
			}
			hide(s)
			tar := s.archive(window(0, 20))
			opt := s.auditor()
			if r := check(t, tar, opt); r.Verdict != export.Incomplete || len(r.Summary.Withheld) != 1 {
				t.Errorf("withheld %v: %s", r.Summary.Withheld, explain(r))
			}
			opt.Withheld = 1
			want := export.Verified
			if name == "data of entry 0" {
				want = export.Incomplete // the keys cannot be compared with anything
			}
			if r := check(t, tar, opt); r.Verdict != want {
				t.Errorf("one was expected: %s", explain(r))
			}
		})
	}
}

// Data of an entry before the window is missing in a run's story.
func TestDataWithheldBeforeTheWindowIsDeclaredToo(t *testing.T) {
	s := busySite(t)
	s.entries[4].Data, s.entries[4].Withheld = nil, "erased"
	tar := s.archive(window(9, 20))
	opt := s.auditor()
	if r := check(t, tar, opt); r.Verdict != export.Incomplete || r.Summary.Withheld[0].Seq != 4 {
		t.Error(explain(r))
	}
	k := takeApart(t, s, tar)
	k.manifest.Withheld[0].Reason = "other"
	if got := failed(check(t, k.pack(k.assemble()), opt)); len(got) == 0 || got[0] != "runs" {
		t.Errorf("another reason in the manifest: failed %v, want runs", got)
	}
}

func TestDamageIsNamedAndNeverArchived(t *testing.T) {
	for name, tc := range map[string]struct {
		damage func(s *site)
		what   string
	}{
		"an envelope":            {func(s *site) { flip(&s.entries[9].Envelope, `ada`, `bob`) }, "the ledger"},
		"an envelope's form":     {func(s *site) { flip(&s.entries[9].Envelope, `{`, `[`) }, "entry 9"},
		"the entry before":       {func(s *site) { flip(&s.entries[3].Envelope, `root`, `toor`) }, "the ledger"},
		"a data line":            {func(s *site) { flip(&s.entries[9].Data, `ticket`, `tucket`) }, "entry 9"},
		"data without a reason":  {func(s *site) { s.entries[9].Data = nil }, "entry 9"},
		"data with a bad reason": {func(s *site) { s.entries[9].Data, s.entries[9].Withheld = nil, `a"b` }, "entry 9"},
		"a sealed file":          {func(s *site) { s.blobs[s.blob("plan")] = []byte("plam") }, "sealed file"},
		"no sealed file":         {func(s *site) { delete(s.blobs, s.blob("plan")) }, "sealed file"},
		"a log segment": {func(s *site) {
			for d := range s.segments {
				s.segments[d] = append([]byte("x"), s.segments[d]...)
			}
		}, "log segment"},
		"a log segment's end": {func(s *site) {
			for d := range s.segments {
				s.segments[d] = append(bytes.Clone(s.segments[d]), "x"...)
			}
		}, "log segment"},
		"no log segment": {func(s *site) { clear(s.segments) }, "log segment"},
		"a hash":         {func(s *site) { s.hashes[0][0] ^= 1; s.hashes[2][0] ^= 1 }, "the ledger"},
		"the checkpoint": {func(s *site) { s.notes[1] = s.notes[1][1:] }, "the checkpoint"},
		"an entry":       {func(s *site) { s.entries[9].Seq = 10 }, "entry 10"},
	} {
		t.Run(name, func(t *testing.T) {
			s := busySite(t)
			tc.damage(s)
			var out bytes.Buffer
			_, err := export.Create(context.Background(), s, &out, s.options(window(4, 20)))
			var damaged *export.DamagedError
			if !errors.As(err, &damaged) || !strings.HasPrefix(damaged.What, tc.what) {
				t.Errorf("Create = %v, want *DamagedError of %s", err, tc.what)
			}
			if out.Len() > 0 {
				t.Errorf("%d bytes were written", out.Len())
			}
		})
	}
}

func flip(line *[]byte, old, with string) {
	*line = bytes.Replace(bytes.Clone(*line), []byte(old), []byte(with), 1)
}

// A file that is whole when it is measured and not when it is written.
func TestAChangeDuringTheExportIsNoticed(t *testing.T) {
	s := &fickle{site: busySite(t), reads: map[string]int{}}
	_, err := export.Create(context.Background(), s, io.Discard, s.options(window(4, 20)))
	var damaged *export.DamagedError
	if !errors.As(err, &damaged) {
		t.Errorf("Create = %v, want a *DamagedError", err)
	}
}

type fickle struct {
	*site
	reads map[string]int
}

func (f *fickle) Blob(digest string) (io.ReadCloser, error) {
	if f.reads[digest]++; f.reads[digest] > 1 {
		return io.NopCloser(bytes.NewReader(make([]byte, len(f.blobs[digest])))), nil
	}
	return f.site.Blob(digest)
}

func TestTimesOutOfOrderAreDamage(t *testing.T) {
	s := newSite(t)
	for i := range 20 {
		s.at = start.Add(time.Duration(i) * time.Second)
		if i == 9 {
			s.at = s.at.Add(-2 * time.Second)
		}
		s.add(ledger.Envelope{Type: ledger.SiteStopped, Actor: "system:x"}, &ledger.SiteStop{})
	}
	s.checkpoint()
	_, err := export.Create(context.Background(), s, io.Discard, s.options(window(4, 15)))
	var damaged *export.DamagedError
	if !errors.As(err, &damaged) {
		t.Errorf("Create = %v, want a *DamagedError", err)
	}
}

// What a store says of itself is not believed.
func TestALedgerThatEndsEarlyIsDamage(t *testing.T) {
	s := &short{busySite(t)}
	_, err := export.Create(context.Background(), s, io.Discard, s.options(window(4, 20)))
	var damaged *export.DamagedError
	if !errors.As(err, &damaged) {
		t.Errorf("Create = %v, want a *DamagedError", err)
	}
}

type short struct{ *site }

func (s *short) Entries(from, to int64) iter.Seq2[export.Entry, error] {
	return s.site.Entries(from, to-3)
}

type shifted struct{ *site }

func (s *shifted) FirstAtOrAfter(at string) (int64, error) {
	n, err := s.site.FirstAtOrAfter(at)
	return n + 1, err
}

func TestASearchThatErrsIsDamage(t *testing.T) {
	_, err := export.Create(context.Background(), &shifted{busySite(t)}, io.Discard, busySite(t).options(window(4, 15)))
	var damaged *export.DamagedError
	if !errors.As(err, &damaged) {
		t.Errorf("Create = %v, want a *DamagedError", err)
	}
}
