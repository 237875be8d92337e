package findings

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/stellarun/stella/examples/audit/internal/osv"
)

// maxRecords bounds a folder of advisories.
const maxRecords = 200_000

// ErrAdvisories is the error of a folder of advisories that cannot be used.
var ErrAdvisories = errors.New("findings: advisories")

// ReadAdvisories reads every .json file below fsys as a record, and sorts them
// by id. A faulty record fails the whole: an audit by half a database would
// look like a clean machine.
func ReadAdvisories(fsys fs.FS) ([]osv.Record, error) {
	var records []osv.Record
	err := fs.WalkDir(fsys, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".json") {
			return err
		}
		if len(records) == maxRecords {
			return fmt.Errorf("%w: more than %d", ErrAdvisories, maxRecords)
		}
		f, err := fsys.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		r, err := osv.Decode(f)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrAdvisories, path, err)
		}
		records = append(records, r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(records, func(a, b osv.Record) int { return cmp.Compare(a.ID, b.ID) })
	for i := 1; i < len(records); i++ {
		if records[i].ID == records[i-1].ID {
			return nil, fmt.Errorf("%w: %s comes twice", ErrAdvisories, records[i].ID)
		}
	}
	return records, nil
}
