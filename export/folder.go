package export

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	pathpkg "path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/stellarun/stella/internal/fsx"
)

// ErrFolder is an encrypted folder that holds something else than files. It comes wrapped.
var ErrFolder = errors.New("it is not a folder of files that stella has encrypted")

// EncryptFolder encrypts the regular files below a folder as one tar, for each of the
// recipients alone, and writes it to w. progress is told the bytes that were read; it may
// be nil.
func EncryptFolder(ctx context.Context, w io.Writer, dir string, recipients []string, progress func(done int64)) error {
	sealed, err := Encrypt(w, recipients)
	if err != nil {
		return err
	}
	out := tar.NewWriter(sealed)
	var done int64
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || d.IsDir() {
			return err
		}
		f, err := fsx.OpenRegular(path)
		if err != nil {
			return err
		}
		defer f.Close()
		fi, err := f.Stat()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: filepath.ToSlash(name), Mode: 0o600, Size: fi.Size(), Format: tar.FormatPAX}
		if err := out.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(out, f); err != nil {
			return err
		}
		if done += fi.Size(); progress != nil {
			progress(done)
		}
		return nil
	})
	if err = errors.Join(err, out.Close(), sealed.Close()); err != nil {
		return fmt.Errorf("export: encrypt %s: %w", dir, err)
	}
	return nil
}

// DecryptFolder writes the files of an encrypted folder below dir, which must be empty. What
// they are is not verified. No more is written than the file is long.
func DecryptFolder(ctx context.Context, path string, identity []byte, dir string, progress func(done int64)) error {
	m, err := openMedium(path)
	if err != nil {
		return err
	}
	if m == nil {
		return fmt.Errorf("export: %s: %w", path, ErrFolder)
	}
	defer m.Close()
	plain, err := decrypted(m, identity)
	if err != nil {
		return err
	}
	if plain == m { // it never was
		return fmt.Errorf("export: %s: %w", path, ErrFolder)
	}
	in := tar.NewReader(io.NewSectionReader(plain, 0, plain.size))
	var done int64
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("export: %s: %w", path, err)
		}
		if !isFile(h) || done+h.Size > plain.size { // a sparse file would be longer than what is stored of it
			return fmt.Errorf("export: %s: %w: %.100q", path, ErrFolder, h.Name)
		}
		err = unpack(in, filepath.Join(dir, filepath.FromSlash(h.Name)))
		if errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.EISDIR) {
			return fmt.Errorf("export: %s: %w: %.100q comes twice", path, ErrFolder, h.Name)
		}
		if err != nil {
			return fmt.Errorf("export: %s: %w", path, err)
		}
		if done += h.Size; progress != nil {
			progress(done)
		}
	}
}

// maxFileName bounds the names of the files, in bytes.
const maxFileName = 255

// isFile says whether a member of a folder is a file as EncryptFolder writes it.
func isFile(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return false
		}
	}
	return h.Typeflag == tar.TypeReg && len(h.Name) <= maxFileName && h.Name != "." && filepath.IsLocal(h.Name) &&
		pathpkg.Clean(h.Name) == h.Name && !strings.Contains(h.Name, "\\")
}

func unpack(in io.Reader, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, in)
	return errors.Join(err, f.Close())
}
