package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/runner"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/store"
	"github.com/stellarun/stella/telemetry"
)

var _ api.Secrets = (*site)(nil)

// maxSecretUses bounds the attempts that one answer lists.
const maxSecretUses = 500

// SetSecret implements [api.Secrets].
func (s *site) SetSecret(_ context.Context, req api.SecretRequest) (api.Secret, error) {
	return s.addSecret(req, false)
}

// RotateSecret implements [api.Secrets].
func (s *site) RotateSecret(_ context.Context, req api.SecretRequest) (api.Secret, error) {
	return s.addSecret(req, true)
}

func (s *site) addSecret(req api.SecretRequest, rotate bool) (api.Secret, error) {
	defer clear(req.Value)
	if err := s.checkSecret(req); err != nil {
		return api.Secret{}, err
	}
	rec, err := s.e.vault.Add(s.actor, s.tenant, req.Name, req.Value, rotate, clip(req.Reason))
	switch {
	case errors.Is(err, store.ErrSecretTaken):
		return api.Secret{}, &api.Error{Code: api.CodeConflict, Message: "there is a secret " + req.Name + " already, and it is not overwritten",
			Hint: "stella secret rotate " + req.Name}
	case rotate && store.IsNotFound(err):
		return api.Secret{}, &api.Error{Code: api.CodeNotFound, Message: "there is no secret " + req.Name, Hint: "stella secret set " + req.Name}
	case errors.Is(err, store.ErrTooManyVersions):
		return api.Secret{}, &api.Error{Code: api.CodeConflict, Message: err.Error(), Hint: "remove old ones: stella secret remove " + req.Name + " --version N"}
	case errors.Is(err, store.ErrTooManySecrets):
		return api.Secret{}, &api.Error{Code: api.CodeConflict, Message: err.Error(), Hint: "stella secret list"}
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return api.Secret{}, spaceError(err)
	case err != nil:
		return api.Secret{}, dbError(err)
	}
	return s.showSecret(rec), nil
}

// checkSecret refuses values that could not be masked, or that stand elsewhere
// in the clear. Messages say nothing of the value.
func (s *site) checkSecret(req api.SecretRequest) error {
	if !manifests.ValidName(req.Name) {
		return invalid("the name of a secret is [a-z0-9][a-z0-9.-]{0,62}, not %q", req.Name)
	}
	if len(req.Value) > store.MaxSecret {
		return invalid("the value has more than %d bytes", store.MaxSecret)
	}
	if !telemetry.Maskable(req.Value) {
		return &api.Error{Code: api.CodeInvalid, Message: fmt.Sprintf("the value has less than %d bytes, line feeds not counted: it could not be masked in logs", telemetry.MinSecret),
			Hint: "use a longer one"}
	}
	what, err := s.e.inUse(s.tenant, string(req.Value))
	if err != nil {
		return dbError(err)
	}
	if what != "" {
		return &api.Error{Code: api.CodeInvalid, Message: "the value is the id, name or digest of " + what + ", which is in the ledger in the clear",
			Hint: "use another value"}
	}
	return nil
}

// inUse says what has this text as its id.
func (e *Engine) inUse(tenant, text string) (string, error) {
	what, err := e.db.InUse(tenant, text)
	if what != "" || err != nil {
		return what, err
	}
	if t := e.currentTrust().Ref(); slices.Contains([]string{t.Root, t.Policy, t.Revocations}, text) {
		return "a trust file", nil
	}
	recs, err := e.db.DAGs("")
	if err != nil {
		return "", err
	}
	for _, rec := range recs {
		d, _, err := e.dagSpec(rec.Digest)
		if err != nil {
			continue // its contents are not here
		}
		for _, list := range [][]manifests.Step{d.Steps, d.OnFailure, d.OnCancel} {
			if slices.ContainsFunc(list, func(x manifests.Step) bool { return x.ID == text }) {
				return "a step of " + rec.DAGID, nil
			}
		}
	}
	return "", nil
}

// ListSecrets implements [api.Secrets].
func (s *site) ListSecrets(context.Context) ([]api.Secret, error) {
	recs, err := s.e.db.Secrets(s.tenant)
	if err != nil {
		return nil, dbError(err)
	}
	out := make([]api.Secret, 0, len(recs))
	for _, rec := range recs {
		out = append(out, s.showSecret(rec))
	}
	return out, nil
}

func (s *site) showSecret(rec store.SecretRecord) api.Secret {
	out := api.Secret{Name: rec.Name, Versions: []api.SecretVersion{}, Granted: []api.SecretGrant{}}
	for _, v := range rec.Versions {
		out.Version = v.Version
		out.Versions = append(out.Versions, api.SecretVersion{
			Version: v.Version, SinceUTC: v.Set.Time, By: v.Set.Actor, Reason: v.Set.Reason, Uses: v.Uses,
		})
	}
	for _, p := range s.e.currentTrust().Policy().Publishers {
		for _, g := range p.Allow.Secrets {
			if g.Name == rec.Name && slices.Contains(g.Tenants, s.tenant) {
				out.Granted = append(out.Granted, api.SecretGrant{Publisher: p.Name, Plugins: g.Plugins, DAGs: g.DAGs})
			}
		}
	}
	if u := rec.LastUsed; u != nil {
		use := s.e.secretUse(*u)
		out.LastUsed = &use
	}
	return out
}

// secretUse adds to a use what became of the attempt.
func (e *Engine) secretUse(u store.SecretUsage) api.SecretUse {
	out := api.SecretUse{
		Version: u.Version, DAGID: u.DAGID, DAGVersion: u.DAG, RunID: u.RunID, StepID: u.StepID, Attempt: u.Attempt, TimeUTC: u.Time,
	}
	if a, err := e.db.Attempt(u.RunID, u.StepID, u.Attempt); err == nil && a.End != nil {
		out.Outcome, out.ErrorCode = a.End.Outcome, a.End.ErrorCode
	}
	if run, err := e.db.Run(u.RunID); err == nil {
		out.RunStatus = string(run.Status)
	}
	return out
}

// SecretUses implements [api.Secrets].
func (s *site) SecretUses(_ context.Context, name string) (api.SecretUses, error) {
	out := api.SecretUses{Name: name, DAGs: []api.SecretDAG{}, Attempts: []api.SecretUse{}}
	if _, err := s.e.db.Secret(s.tenant, name); err != nil {
		return out, dbError(err)
	}
	dags, err := s.e.dagsNaming(name)
	if err != nil {
		return out, dbError(err)
	}
	var newest []store.SecretUsage
	err = s.e.db.SecretUses(s.tenant, name, func(u store.SecretUsage) {
		d := dags[[2]string{u.DAGID, u.DAG}]
		if d == nil {
			d = &api.SecretDAG{DAGID: u.DAGID, DAGVersion: u.DAG, Steps: []string{}}
			dags[[2]string{u.DAGID, u.DAG}] = d
		}
		d.Attempts++
		d.LastUTC = u.Time
		if newest = append(newest, u); len(newest) > 2*maxSecretUses {
			newest = slices.Clone(newest[len(newest)-maxSecretUses:])
		}
		out.More++
	})
	if err != nil {
		return out, dbError(err)
	}
	slices.Reverse(newest)
	for _, u := range newest[:min(len(newest), maxSecretUses)] {
		out.Attempts = append(out.Attempts, s.e.secretUse(u))
		out.More--
	}
	for _, d := range dags {
		out.DAGs = append(out.DAGs, *d)
	}
	slices.SortFunc(out.DAGs, func(a, b api.SecretDAG) int {
		return cmp.Or(strings.Compare(a.DAGID, b.DAGID), strings.Compare(a.DAGVersion, b.DAGVersion))
	})
	return out, nil
}

// dagsNaming are the published DAG versions of which a step names the secret.
func (e *Engine) dagsNaming(name string) (map[[2]string]*api.SecretDAG, error) {
	recs, err := e.db.DAGs("")
	if err != nil {
		return nil, err
	}
	out := map[[2]string]*api.SecretDAG{}
	for _, rec := range recs {
		d, _, err := e.dagSpec(rec.Digest)
		if err != nil {
			continue // its contents are not here
		}
		steps := []string{}
		for _, list := range [][]manifests.Step{d.Steps, d.OnFailure, d.OnCancel} {
			for _, x := range list {
				if slices.Contains(x.Secrets, name) {
					steps = append(steps, x.ID)
				}
			}
		}
		if len(steps) > 0 {
			out[[2]string{rec.DAGID, rec.Version}] = &api.SecretDAG{DAGID: rec.DAGID, DAGVersion: rec.Version, Enabled: rec.Enabled, Steps: steps}
		}
	}
	return out, nil
}

// keeper gives the runner secrets.
type keeper struct{ e *Engine }

// Granted looks into the policy in force.
func (k *keeper) Granted(w runner.SecretWish) bool {
	return slices.ContainsFunc(k.e.currentTrust().Policy().Publishers, func(p manifests.Publisher) bool {
		return p.Name == w.Publisher && p.Grants(w.Name, w.Tenant, w.DAGPublisher, w.DAGID, w.Plugin)
	})
}

// Take reads the newest version.
func (k *keeper) Take(tenant, name string) (int64, []byte, error) {
	version, value, err := k.e.vault.Take(tenant, name)
	if store.IsNotFound(err) {
		err = runner.ErrNoSecret
	}
	return version, value, err
}

// RemoveSecret implements [api.Secrets].
func (s *site) RemoveSecret(_ context.Context, req api.SecretRemoval) (api.SecretRemoved, error) {
	out := api.SecretRemoved{DryRun: req.DryRun, Removed: []int64{}}
	if (req.Version != 0) == req.All || req.Version < 0 {
		return out, invalid("name one version, or all")
	}
	rec, err := s.e.db.Secret(s.tenant, req.Name)
	if err != nil {
		return out, dbError(err)
	}
	var versions []int64
	if !req.All {
		versions = []int64{req.Version}
	}
	if req.DryRun {
		for _, v := range rec.Versions {
			if req.All || v.Version == req.Version {
				out.Removed = append(out.Removed, v.Version)
			}
		}
		out.Secret = s.showSecret(rec)
		return out, nil
	}
	rec, gone, err := s.e.vault.Remove(s.actor, s.tenant, req.Name, versions, clip(req.Reason))
	if err != nil {
		return out, dbError(err)
	}
	out.Removed, out.Secret = gone, s.showSecret(rec)
	return out, nil
}
