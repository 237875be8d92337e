package export

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/stellarun/stella/internal/ustar"
)

// container is an archive that is being read: a tar, or the folder that one was
// unpacked to. Its files are read several times. What the first reading hashed
// is what every later one must give: a medium that changes its mind is a fault.
type container struct {
	members []ustar.Member
	index   map[string]int
	at      func(m ustar.Member) (io.ReadCloser, error)
	closer  io.Closer
	tar     bool
	bytes   int64
	sums    map[string]string // path → SHA-256 of the first reading
	fault   error             // the first fault of the medium
}

// openContainer opens the tar or folder at path; a tar may be in parts, and encrypted to
// one of the identities. A container of another form than an archive's is a *ustar.FormError.
func openContainer(path string, identity []byte) (*container, error) {
	file, err := openMedium(path)
	if err != nil {
		return nil, err
	}
	c := &container{index: map[string]int{}, sums: map[string]string{}}
	if file == nil {
		err = c.openFolder(path)
	} else {
		err = c.openTar(file, identity)
	}
	if err != nil {
		if c.closer != nil {
			c.closer.Close()
		}
		return nil, err
	}
	return c, nil
}

func (c *container) openTar(file *medium, identity []byte) error {
	c.closer, c.tar = file, true
	f, err := decrypted(file, identity)
	if err != nil {
		return err
	}
	c.bytes = f.size
	c.at = func(m ustar.Member) (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(f, m.Offset, m.Size)), nil
	}
	if c.members, err = ustar.Index(f, c.bytes, maxMembers); err != nil {
		return err
	}
	return c.order()
}

// order checks that the members are those of an archive, in its order.
func (c *container) order() error {
	last, rank := "", -1
	for i, m := range c.members {
		next := memberRank(m.Name)
		switch {
		case next < 0:
			return &ustar.FormError{Problem: fmt.Sprintf("no archive has a file %.100q", m.Name)}
		case next < rank || next == rank && m.Name <= last:
			return &ustar.FormError{Name: m.Name, Problem: "is out of order, or there twice"}
		case m.Time != c.members[0].Time:
			return &ustar.FormError{Name: m.Name, Problem: "has another time than the file before it"}
		}
		last, rank = m.Name, next
		c.index[m.Name] = i
	}
	return c.complete()
}

// complete checks that no file is missing that every archive has.
func (c *container) complete() error {
	for i, path := range fixedPaths() {
		if _, ok := c.index[path]; !ok && i != evidenceRank {
			return &ustar.FormError{Name: path, Problem: "is missing"}
		}
	}
	return nil
}

func (c *container) openFolder(path string) error {
	root, err := os.OpenRoot(path)
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	c.closer = root
	c.at = func(m ustar.Member) (io.ReadCloser, error) {
		// The flags keep a file that became a pipe or a link from being waited
		// for or followed.
		f, err := root.OpenFile(m.Name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		info, err := f.Stat()
		if err == nil && (!info.Mode().IsRegular() || info.Size() != m.Size) {
			err = errChanged
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return f, nil
	}
	if err := c.walk(root.FS()); err != nil {
		return err
	}
	slices.SortFunc(c.members, func(a, b ustar.Member) int { return strings.Compare(a.Name, b.Name) })
	for i, m := range c.members {
		c.index[m.Name] = i
	}
	return c.complete()
}

func (c *container) walk(fsys fs.FS) error {
	return fs.WalkDir(fsys, ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return fmt.Errorf("export: %w", err)
		case d.IsDir():
			if path != "." && !isFolder(path+"/") {
				return &ustar.FormError{Problem: fmt.Sprintf("no archive has a folder %.100q", path)}
			}
			return nil
		case memberRank(path) < 0:
			return &ustar.FormError{Problem: fmt.Sprintf("no archive has a file %.100q", path)}
		case !d.Type().IsRegular():
			return &ustar.FormError{Name: path, Problem: "is not a regular file"}
		case len(c.members) == maxMembers:
			return &ustar.FormError{Problem: fmt.Sprintf("more than %d files", maxMembers)}
		}
		info, err := d.Info()
		if err != nil {
			return fmt.Errorf("export: %w", err)
		}
		c.members = append(c.members, ustar.Member{Name: path, Size: info.Size()})
		c.bytes += info.Size()
		return nil
	})
}

// isFolder says whether a path of an archive lies below folder.
func isFolder(folder string) bool {
	for _, p := range fixedPaths() {
		if strings.HasPrefix(p, folder) {
			return true
		}
	}
	return false
}

func (c *container) close() { c.closer.Close() }

var errChanged = errors.New("export: the archive changed while it was read")

// open returns the content of a file that the container has.
func (c *container) open(path string) (io.ReadCloser, error) {
	m := c.members[c.index[path]]
	r, err := c.at(m)
	if err != nil {
		c.fault = errors.Join(c.fault, err)
		return nil, err
	}
	return &checkedReader{c: c, m: m, r: r, sum: sha256.New()}, nil
}

// small reads a file of at most limit bytes.
func (c *container) small(path string, limit int64) ([]byte, error) {
	if n := c.members[c.index[path]].Size; n > limit {
		return nil, fmt.Errorf("%s has %d bytes, more than %d", path, n, limit)
	}
	r, err := c.open(path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// checkedReader hashes a file as it is read. At the end it compares with the
// first reading. Faults of the medium are kept with the container, so that
// they are not taken for faults of the archive.
type checkedReader struct {
	c   *container
	m   ustar.Member
	r   io.ReadCloser
	sum hash.Hash
	n   int64
}

func (r *checkedReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.sum.Write(p[:n])
	r.n += int64(n)
	switch {
	case err == io.EOF:
		if fault := r.compare(); fault != nil {
			err = fault
			r.c.fault = errors.Join(r.c.fault, fault)
		}
	case err != nil:
		r.c.fault = errors.Join(r.c.fault, fmt.Errorf("export: read %s: %w", r.m.Name, err))
	}
	return n, err
}

func (r *checkedReader) compare() error {
	digest := hex.EncodeToString(r.sum.Sum(nil))
	first, again := r.c.sums[r.m.Name]
	if r.n != r.m.Size || again && first != digest {
		return fmt.Errorf("%w: %s", errChanged, r.m.Name)
	}
	r.c.sums[r.m.Name] = digest
	return nil
}

func (r *checkedReader) Close() error { return r.r.Close() }
