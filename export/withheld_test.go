package export_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/ledger"
)

// What is withheld is declared once, with the one entry that it is withheld for.
func TestBothRefuseWhatIsDeclaredTwice(t *testing.T) {
	for name, tc := range map[string]struct {
		what  string
		again func(w *export.Withheld)
		want  string
	}{
		"evidence, with two entries":  {"evidence", func(w *export.Withheld) { w.Seq-- }, "evidence"},
		"a log, twice for an attempt": {"log", func(w *export.Withheld) { w.SHA256 = strings.Repeat("0", 64) }, "logs"},
	} {
		for _, last := range []bool{false, true} {
			s := busySite(t)
			if s.gone[s.blob("plan")] = "secret"; tc.what == "log" {
				for d := range s.segments {
					s.gone[d] = "lost"
				}
			}
			k := takeApart(t, s, s.archive(window(4, 20)))
			i := slices.IndexFunc(k.manifest.Withheld, func(w export.Withheld) bool { return w.What == tc.what })
			w := k.manifest.Withheld[i]
			if tc.again(&w); last && tc.what == "log" {
				w.SHA256 = strings.Repeat("f", 64)
			} else if last {
				w.Seq += 2
			}
			k.manifest.Withheld = append(k.manifest.Withheld, w)
			slices.SortFunc(k.manifest.Withheld, func(a, b export.Withheld) int {
				if a.What != b.What {
					return strings.Compare(a.What, b.What)
				}
				if a.Seq != b.Seq {
					return int(a.Seq - b.Seq)
				}
				return strings.Compare(a.SHA256, b.SHA256)
			})
			opt := s.auditor()
			opt.Withheld = int64(len(k.manifest.Withheld))
			if r := check(t, k.pack(k.assemble()), opt); !slices.Equal(failed(r), []string{tc.want}) {
				t.Errorf("%s, last %v: %s", name, last, explain(r))
			}
		}
	}
}

// Where a line of a run is withheld nobody folds it: what its entries from before the window
// must be is still looked at.
func TestBothLookAtRunsThatNobodyFolds(t *testing.T) {
	for name, tc := range map[string]struct {
		forge func(k *kit, s *site)
	}{
		"it has no beginning": {func(k *kit, s *site) {
			e := s.entries[9]
			k.replace(runs, `{"data":`+string(e.Data)+`,"envelope":`+string(e.Envelope)+`},`, "")
		}},
		"it has nothing from before": {func(k *kit, s *site) {
			for _, e := range s.entries[9:11] {
				k.replace(runs, `{"data":`+string(e.Data)+`,"envelope":`+string(e.Envelope)+`},`, "")
			}
		}},
		"it begins twice": {func(k *kit, s *site) {
			e, old := string(s.entries[9].Envelope), string(s.entries[10].Envelope)
			again := `{"data":` + strings.Replace(string(s.entries[9].Data), `"seq":9`, `"seq":10`, 1) + `,"envelope":` + strings.Replace(e, `"seq":9`, `"seq":10`, 1)
			line := strings.Replace(string(s.entries[9].Data), `"seq":9`, `"seq":10`, 1)
			again = strings.Replace(again, digest(s.entries[9].Data), digest([]byte(line)), 1)
			k.replace(runs, `{"data":`+string(s.entries[10].Data)+`,"envelope":`+old, again)
		}},
		"what is from before has times of the window": {func(k *kit, s *site) {
			for n := 9; n < 11; n++ {
				e := string(s.entries[n].Envelope)
				k.replace(runs, e, strings.Replace(e, second(n), second(15), 1))
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := busySite(t)
			s.entries[15].Data, s.entries[15].Withheld = nil, "erased"
			k := takeApart(t, s, s.archive(window(15, 16)))
			tc.forge(k, s)
			opt := s.auditor()
			opt.Withheld = 1
			if r := check(t, k.pack(k.assemble()), opt); !slices.Equal(failed(r), []string{"runs"}) {
				t.Error(explain(r))
			}
		})
	}
}

// All entries of a run are of its tenant, DAG, version and trace.
func TestBothDemandThatARunIsOfOneDAG(t *testing.T) {
	for name, edit := range map[string]func(e *ledger.Envelope){
		"another tenant":  func(e *ledger.Envelope) { e.Tenant = "other" },
		"another DAG":     func(e *ledger.Envelope) { e.DAGID = "innocent" },
		"another version": func(e *ledger.Envelope) { e.DAGVersion = "9.9.9" },
		"another trace":   func(e *ledger.Envelope) { e.TraceID = strings.Repeat("1", 32) },
		"no DAG":          func(e *ledger.Envelope) { e.DAGID = "" },
	} {
		for _, n := range []int{4, 6, 12, 14} {
			s := retold(t, func(seq int, e *ledger.Envelope, data any) any {
				if seq == n {
					edit(e)
				}
				return data
			})
			for _, w := range []export.Window{window(0, 20), window(13, 20)} {
				if r := check(t, boundTo(t, s, w), s.auditor()); !slices.Contains(failed(r), "runs") {
					t.Errorf("%s at entry %d, window from %s: %s", name, n, w.From, explain(r))
				}
			}
		}
	}
}
