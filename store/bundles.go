package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
)

// Append writes one entry about the site and returns its seq.
func (db *DB) Append(t ledger.Type, actor string, data any) (int64, error) {
	encoded, err := ledger.Encode(t, data) // here, and not in the one goroutine that writes
	if err != nil {
		return 0, err
	}
	var seq int64
	err = db.update(func(tx *Tx) error {
		env, err := tx.append(siteEntry(t, actor, encoded))
		seq = env.Seq
		return err
	})
	return seq, err
}

// An Admitting is an admission and the floor that it was judged against. A
// bundle of kind trust brings the change that it makes.
type Admitting struct {
	Admission *ledger.BundleAdmission
	JudgedAt  Floor
	Change    *ledger.TrustChange // nil for none
}

// Admit writes the admission of a bundle whose blobs are sealed, unless the
// floor moved since it was judged ([ErrFloorMoved]: judge again).
func (db *DB) Admit(actor string, a Admitting) (Admitted, error) {
	all, err := db.AdmitAll(actor, []Admitting{a})
	if err != nil {
		return Admitted{}, err
	}
	return all[0], nil
}

// Admitted is an admission that is on disk.
type Admitted struct {
	Seq   int64
	Again bool // the bundle was admitted before
}

// AdmitAll is Admit for several bundles in one transaction: all are admitted,
// in their order, or none.
func (db *DB) AdmitAll(actor string, all []Admitting) ([]Admitted, error) {
	var done []Admitted
	err := db.update(func(tx *Tx) error {
		done = done[:0]
		for _, a := range all {
			one, err := tx.admit(actor, a)
			if err != nil {
				return err
			}
			done = append(done, one)
		}
		return nil
	})
	return done, err
}

// admit writes one admission. A digest that is admitted already was judged
// without the floor, and stays what its reference means.
func (tx *Tx) admit(actor string, a Admitting) (Admitted, error) {
	v := a.Admission.Verdict
	again := tx.get(bBundles, []byte(v.Digest)) != nil
	if !again {
		floor, err := floorOf(tx.bolt, v.Kind, v.Publisher, v.Name)
		if err != nil {
			return Admitted{}, err
		}
		ref := tx.get(bRefs, []byte(v.Publisher+"/"+v.Name+"@"+v.Version))
		if floor != a.JudgedAt || ref != nil && string(ref) != v.Digest {
			return Admitted{}, ErrFloorMoved
		}
	}
	env, err := tx.append(siteEntry(ledger.BundleAdmitted, actor, a.Admission))
	if err == nil && a.Change != nil {
		_, err = tx.append(siteEntry(ledger.TrustChanged, actor, a.Change))
	}
	return Admitted{env.Seq, again}, err
}

// Rejections that get an entry of their own in one minute; what comes beyond is
// counted, and becomes one entry when the minute is over (THREATS 31).
const (
	rejectionsPerMinute = 10
	rejectionMinute     = time.Minute
)

// rejections is what bMeta remembers of the minute.
type rejections struct {
	Since   string           `json:"since"`
	Entries int              `json:"entries"`
	More    map[string]int64 `json:"more,omitempty"` // reason → how many without an entry
}

func rejectionsIn(t *bolt.Tx) (m rejections, err error) {
	if err = getJSON(t, bMeta, kRejections, &m); errors.Is(err, ErrNotFound) {
		err = nil
	}
	return m, err
}

// Reject records a refusal and returns the seq of its entry, or 0 when it was
// only counted.
func (db *DB) Reject(actor string, r *ledger.BundleRejection) (int64, error) {
	var seq int64
	err := db.update(func(tx *Tx) error {
		seq = 0
		now := db.now()
		m, err := rejectionsIn(tx.bolt)
		if err != nil {
			return err
		}
		if since, err := stamp.Parse(m.Since); err != nil || now.Sub(since) >= rejectionMinute || now.Before(since) {
			if err := tx.flushRejections(m, actor); err != nil {
				return err
			}
			m = rejections{Since: stamp.Format(now)}
		}
		if m.Entries < rejectionsPerMinute {
			m.Entries++
			env, err := tx.append(siteEntry(ledger.BundleRejected, actor, r))
			if err != nil {
				return err
			}
			seq = env.Seq
		} else {
			if m.More == nil {
				m.More = map[string]int64{}
			}
			m.More[r.Reason]++
		}
		return tx.putJSON(bMeta, kRejections, m)
	})
	return seq, err
}

// checkRejections reads what no entry gives.
func (db *DB) checkRejections() error {
	return db.view(func(t *bolt.Tx) error {
		_, err := rejectionsIn(t)
		return err
	})
}

// flushRejections writes the entry of those that were only counted.
func (tx *Tx) flushRejections(m rejections, actor string) error {
	if len(m.More) == 0 {
		return nil
	}
	all := &ledger.BundleRejections{Reasons: m.More, Since: m.Since}
	for _, n := range m.More {
		all.Count += n
	}
	_, err := tx.append(siteEntry(ledger.BundlesRejected, actor, all))
	return err
}

// FlushRejections writes the entry of refusals that were only counted, if the
// minute in which they came is over.
func (db *DB) FlushRejections(actor string) error {
	err := db.update(func(tx *Tx) error {
		m, err := rejectionsIn(tx.bolt)
		if err != nil {
			return err
		}
		since, err := stamp.Parse(m.Since)
		if len(m.More) == 0 || err == nil && db.now().Sub(since) < rejectionMinute {
			return errUnchanged
		}
		if err := tx.flushRejections(m, actor); err != nil {
			return err
		}
		return tx.delete(bMeta, kRejections)
	})
	if errors.Is(err, errUnchanged) {
		return nil
	}
	return err
}

// Floor reads the sequence floor; the zero value means none yet.
func (db *DB) Floor(kind, publisher, name string) (f Floor, err error) {
	err = db.view(func(t *bolt.Tx) error {
		f, err = floorOf(t, kind, publisher, name)
		return err
	})
	return f, err
}

// DigestOf reads which digest publisher/name@version means, "" if none yet. The bundle may be
// one that is only remembered.
func (db *DB) DigestOf(ref string) (digest string, err error) {
	err = db.view(func(t *bolt.Tx) error {
		digest = string(t.Bucket(bRefs).Get([]byte(ref)))
		return nil
	})
	return digest, err
}

// Bundle reads an admitted bundle by its digest, a prefix of it that is unique
// and has at least 8 digits, or publisher/name@version.
func (db *DB) Bundle(ref string) (BundleRecord, error) {
	if strings.Contains(ref, "/") {
		digest, err := db.DigestOf(ref)
		if err != nil {
			return BundleRecord{}, err
		}
		if digest == "" {
			return BundleRecord{}, fmt.Errorf("bundle %s: %w", ref, ErrNotFound)
		}
		ref = digest
	}
	if len(ref) < 8 {
		return BundleRecord{}, fmt.Errorf("bundle %q: %w", ref, ErrNotFound)
	}
	rec, ok, mark := db.bundles.get(ref)
	if ok {
		return rec, nil
	}
	n := 0
	err := scan(db, bBundles, []byte(ref), func(t *bolt.Tx, k, _ []byte) error {
		if n++; n > 1 {
			return fmt.Errorf("store: bundle %q is not unique", ref)
		}
		return getJSON(t, bBundles, k, &rec)
	})
	if err == nil && n == 0 {
		err = fmt.Errorf("bundle %s: %w", ref, ErrNotFound)
	}
	if err == nil && ref == rec.Digest {
		db.bundles.put(ref, rec, mark)
	}
	return rec, err
}

// Versions reads the admitted bundles of one publisher and name.
func (db *DB) Versions(publisher, name string) ([]BundleRecord, error) {
	var out []BundleRecord
	err := scan(db, bRefs, []byte(publisher+"/"+name+"@"), func(t *bolt.Tx, _, digest []byte) error {
		var rec BundleRecord
		err := getJSON(t, bBundles, digest, &rec)
		if errors.Is(err, ErrNotFound) {
			return nil // it is only remembered
		}
		out = append(out, rec)
		return err
	})
	return out, err
}

// Bundles reads all admitted bundles, by digest.
func (db *DB) Bundles() ([]BundleRecord, error) {
	var out []BundleRecord
	err := scan(db, bBundles, nil, func(t *bolt.Tx, k, _ []byte) error {
		var rec BundleRecord
		if err := getJSON(t, bBundles, k, &rec); err != nil {
			return err
		}
		out = append(out, rec)
		return nil
	})
	return out, err
}

// ErrDAGTaken says that a DAG id belongs to another publisher, or a version of
// it to another bundle.
var ErrDAGTaken = errors.New("store: the DAG id or version is taken")

// PublishDAG writes the publication of a DAG version. Publishing the same
// bundle again changes nothing and returns the record.
func (db *DB) PublishDAG(actor string, d *ledger.DAGPublication) (DAGRecord, error) {
	var rec DAGRecord
	err := db.update(func(tx *Tx) error {
		rec = DAGRecord{}
		err := getJSON(tx.bolt, bDAGs, pair(d.DAGID, d.Version), &rec)
		if err == nil && rec.Digest == d.Digest {
			return errUnchanged
		}
		if err == nil {
			return fmt.Errorf("%w: %s %s", ErrDAGTaken, d.DAGID, d.Version)
		}
		if !errors.Is(err, ErrNotFound) {
			return err
		}
		prefix := pair(d.DAGID, "")
		if k, _ := tx.bolt.Bucket(bDAGs).Cursor().Seek(prefix); k != nil && strings.HasPrefix(string(k), string(prefix)) {
			var other DAGRecord
			if err := getJSON(tx.bolt, bDAGs, k, &other); err != nil {
				return err
			}
			if other.Publisher != d.Publisher {
				return fmt.Errorf("%w: %s belongs to %s", ErrDAGTaken, d.DAGID, other.Publisher)
			}
		}
		if _, err := tx.append(siteEntry(ledger.DAGPublished, actor, d)); err != nil {
			return err
		}
		return getJSON(tx.bolt, bDAGs, pair(d.DAGID, d.Version), &rec)
	})
	if errors.Is(err, errUnchanged) {
		err = nil
	}
	return rec, err
}

// errUnchanged ends a write that has nothing to do.
var errUnchanged = errors.New("store: nothing to write")

// DAG reads one DAG version.
func (db *DB) DAG(id, version string) (DAGRecord, error) {
	var rec DAGRecord
	err := db.view(func(t *bolt.Tx) error {
		err := getJSON(t, bDAGs, pair(id, version), &rec)
		if errors.Is(err, ErrNotFound) {
			return fmt.Errorf("DAG %s %s: %w", id, version, ErrNotFound)
		}
		return err
	})
	return rec, err
}

// DAGs reads the versions of one DAG, or of all when id is "".
func (db *DB) DAGs(id string) ([]DAGRecord, error) {
	var prefix []byte
	if id != "" {
		prefix = pair(id, "")
	}
	var out []DAGRecord
	err := scan(db, bDAGs, prefix, func(t *bolt.Tx, k, _ []byte) error {
		var rec DAGRecord
		if err := getJSON(t, bDAGs, k, &rec); err != nil {
			return err
		}
		out = append(out, rec)
		return nil
	})
	return out, err
}

// Trust reads the trust in force, and the one before it (nil if there is none).
func (db *DB) Trust() (now ledger.TrustChange, before *ledger.TrustChange, err error) {
	err = db.view(func(t *bolt.Tx) error {
		var prev ledger.TrustChange
		switch err := getJSON(t, bMeta, kTrustPrev, &prev); {
		case err == nil:
			before = &prev
		case !errors.Is(err, ErrNotFound):
			return err
		}
		return getJSON(t, bMeta, kTrust, &now)
	})
	return now, before, err
}

// Extension reads the extension of expired trust on record, nil without one.
func (db *DB) Extension() (*ledger.TrustExtension, error) {
	x := new(ledger.TrustExtension)
	err := db.view(func(t *bolt.Tx) error { return getJSON(t, bMeta, kExtension, x) })
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return x, err
}

// An ExportRecord is an export on record, and the entry that says so.
type ExportRecord struct {
	Seq int64
	ledger.ExportCreation
}

// Exports reads the exports on record, oldest first.
func (db *DB) Exports() ([]ExportRecord, error) {
	var out []ExportRecord
	err := scan(db, bExports, nil, func(t *bolt.Tx, k, _ []byte) error {
		if len(k) != 8 {
			return damaged(errOtherSum, "%s %s of ledger.db", bExports, printable(k))
		}
		e := ExportRecord{Seq: int64(binary.BigEndian.Uint64(k))}
		if err := getJSON(t, bExports, k, &e.ExportCreation); err != nil {
			return err
		}
		out = append(out, e)
		return nil
	})
	return out, err
}
