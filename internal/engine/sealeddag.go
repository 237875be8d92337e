package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
	"github.com/stellarun/stella/verify"
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

// fit refuses a DAG that no site of this version could ever start, before its
// admission uses up the version. What it names may come later, unless it is to be
// published at once.
func (e *Engine) fit(q *store.Quarantine, res *verify.Result, req api.ImportRequest) error {
	m := res.Manifest
	if m.Kind != manifests.KindDAG {
		return nil
	}
	if _, err := e.db.Bundle(res.Digest); !store.IsNotFound(err) {
		return err // admitted already
	}
	f, err := specFile(m)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(q.Dir(), f.SHA256))
	if errors.Is(err, fs.ErrNotExist) { // the same spec is here already
		text, err = e.sealed.Read(f.SHA256, maxSpec)
	}
	if err != nil {
		return err
	}
	if len(text) > maxSpec {
		return fmt.Errorf("its spec has %d bytes, more than %d", len(text), maxSpec)
	}
	unused := func(err error) error {
		var known *api.Error
		if errors.As(err, &known) {
			known.Message = fmt.Sprintf("%s: %s; %s is not admitted", req.Path, known.Message, m.Ref())
		}
		return err
	}
	d, err := manifests.ParseDAG(f.Path, text)
	if err != nil {
		return unused(faults(api.CodeDAGInvalid, "the spec is not valid", err))
	}
	if err := named(d, m.Name, m.Version); err != nil {
		return unused(err)
	}
	if req.Publishable {
		return unused(e.plannable(d, res.Digest))
	}
	if all := runner.Validate(d); len(all) > 0 {
		return unused(faults(api.CodeDAGInvalid, "the DAG cannot be started", all))
	}
	return nil
}

// named refuses a spec that calls itself otherwise than its bundle.
func named(d *manifests.DAG, name, version string) error {
	if d.ID == name && d.Version == version {
		return nil
	}
	return &api.Error{Code: api.CodeDAGInvalid, Message: fmt.Sprintf(
		"%s %s holds dag_id %q version %q; they must be the name and version of the bundle", name, version, d.ID, d.Version)}
}
