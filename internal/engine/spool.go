package engine

import "os"

// spoolFile is a spool that makes its file when it is first used: most small
// bundles store nothing compressed, and need none.
type spoolFile struct {
	path string
	f    *os.File // nil until then
}

func (s *spoolFile) open() error {
	if s.f != nil {
		return nil
	}
	f, err := os.OpenFile(s.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		s.f = f
	}
	return err
}

func (s *spoolFile) Read(p []byte) (int, error) {
	if err := s.open(); err != nil {
		return 0, err
	}
	return s.f.Read(p)
}

func (s *spoolFile) Write(p []byte) (int, error) {
	if err := s.open(); err != nil {
		return 0, err
	}
	return s.f.Write(p)
}

func (s *spoolFile) Seek(offset int64, whence int) (int64, error) {
	if err := s.open(); err != nil {
		return 0, err
	}
	return s.f.Seek(offset, whence)
}

func (s *spoolFile) Truncate(size int64) error {
	if err := s.open(); err != nil {
		return err
	}
	return s.f.Truncate(size)
}

// Close closes the file, which goes with its folder.
func (s *spoolFile) Close() error {
	if s.f == nil {
		return nil
	}
	return s.f.Close()
}
