package store

import (
	"bytes"
	"io"
	"os"

	bolt "go.etcd.io/bbolt"
)

// CheckPages verifies the pages of a file, or all but its leaves, without bbolt.
func CheckPages(raw []byte, leaves bool) error {
	return checkAll(bytes.NewReader(raw), int64(len(raw)), leaves)
}

// WalkPages goes through all that can be read of a file, and says how many pages cannot.
func WalkPages(raw []byte, visit func(bucket, k, v []byte)) (lost int, err error) {
	p, err := openPages(bytes.NewReader(raw), int64(len(raw)), false)
	if err != nil {
		return 0, err
	}
	bad := func(e *pageError) error {
		if e.lost {
			lost++
		}
		return nil
	}
	all, _ := p.buckets(bad)
	for _, b := range all {
		_ = b.walk(&walk{p: p, bad: bad, leaf: func(x *page) error {
			for i := range x.n {
				v, _ := x.value(i)
				visit(b.name, x.key(i), v)
			}
			return nil
		}})
	}
	return lost, nil
}

// ReadWreck is what can be read of a bucket of a damaged database in a home.
func ReadWreck(home, bucket string) (all map[string]string, unread int, err error) {
	w, err := openWreck(home, nil)
	if err != nil {
		return nil, 0, err
	}
	defer w.close()
	all = map[string]string{}
	err = w.each([]byte(bucket), func(k, v []byte) error {
		all[string(k)] = string(v)
		return nil
	})
	return all, w.unread([]byte(bucket)), err
}

// EachAhead visits the records of a bucket from a key on, as a quick check does.
func EachAhead(db *bolt.DB, f io.ReaderAt, bucket, from []byte, visit func(k, v []byte)) error {
	var a ahead
	return db.View(func(t *bolt.Tx) error {
		return a.each(t, f, bucket, from, func(k, v []byte) error {
			visit(k, v)
			return nil
		})
	})
}

// Guard runs fn as what uses bbolt runs.
func Guard(fn func() error) error { return guard(fn) }

// CheckFile is CheckPages of a file that lies on disk.
func CheckFile(path string, leaves bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return checkFile(f, leaves)
}
