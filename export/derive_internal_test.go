package export

import (
	"fmt"
	"testing"

	"github.com/stellarun/stella/ledger"
)

// Names of sealed files that are not there are not kept, however many: anybody can make an archive.
func TestNamesOfWhatIsNotThereAreNotKept(t *testing.T) {
	d := newDeriver("0123456789abcdef0123456789abcdef", Window{From: "2026-01-01T00:00:00.000000000Z", To: "2026-02-01T00:00:00.000000000Z"}, 0, func([]byte) error { return nil })
	d.most = 3
	for i := range 5 {
		a := &ledger.BundleAdmission{}
		for n := range 100 {
			a.Attestations = append(a.Attestations, fmt.Sprintf("%064x", 100*i+n))
		}
		e := entry{}
		e.Envelope.Type, e.Envelope.Seq, e.Envelope.Time, e.Data = ledger.BundleAdmitted, int64(i), "2026-01-02T00:00:00.000000000Z", a
		if err := d.entry(e); err != nil {
			t.Fatal(err)
		}
	}
	if len(d.evidence) != 4 {
		t.Errorf("%d names are kept, want those that can be there and one more", len(d.evidence))
	}
}
