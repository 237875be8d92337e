package engine

import (
	"fmt"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/store"
)

// DAG reads the spec of an admitted DAG bundle.
func (s *sealed) DAG(digest string) (*manifests.DAG, error) {
	d, _, err := s.e.dagSpec(digest)
	return d, err
}

// Startable says why a DAG version may not be started as a sub-run.
func (s *sealed) Startable(id, version string) error {
	rec, err := s.e.db.DAG(id, version)
	switch {
	case store.IsNotFound(err):
		return fmt.Errorf("dag %s@%s has not been published", id, version)
	case err != nil:
		return err
	case !rec.Enabled:
		return fmt.Errorf("dag %s@%s is disabled; see: stella orch dag enable", id, version)
	}
	return nil
}

// SubDAG finds what a step of another DAG starts, if it may be started now.
func (s *sealed) SubDAG(id, version string) (string, *manifests.DAG, error) {
	if err := s.Startable(id, version); err != nil {
		return "", nil, err
	}
	rec, err := s.e.db.DAG(id, version)
	if err != nil {
		return "", nil, err
	}
	if _, err := s.Judge(rec.Digest); err != nil {
		return "", nil, fmt.Errorf("dag %s@%s may not be used now: %w", id, version, err)
	}
	d, err := s.DAG(rec.Digest)
	return rec.Digest, d, err
}

// Capacity is that of a semaphore, as site.toml gives it.
func (s *sealed) Capacity(semaphore string) int64 { return s.e.site.Semaphores[semaphore] }
