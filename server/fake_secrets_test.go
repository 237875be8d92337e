package server_test

import (
	"context"

	"github.com/stellarun/stella/server/api"
)

func (f *fake) SetSecret(_ context.Context, req api.SecretRequest) (api.Secret, error) {
	if req.Name == "taken" {
		return api.Secret{}, &api.Error{Code: api.CodeConflict, Message: "taken", Hint: "rotate it"}
	}
	return api.Secret{Name: req.Name, Version: int64(len(req.Value)), Granted: []api.SecretGrant{}, Versions: []api.SecretVersion{{Version: 1, Reason: req.Reason}}}, nil
}

func (f *fake) RotateSecret(_ context.Context, req api.SecretRequest) (api.Secret, error) {
	return api.Secret{Name: req.Name, Version: int64(len(req.Value)), Versions: []api.SecretVersion{}, Granted: []api.SecretGrant{{Publisher: "acme"}}}, nil
}

func (f *fake) ListSecrets(context.Context) ([]api.Secret, error) {
	return []api.Secret{{Name: "db", LastUsed: &api.SecretUse{RunID: "<r>"}}}, nil
}

func (f *fake) SecretUses(_ context.Context, name string) (api.SecretUses, error) {
	if name == "nope" {
		return api.SecretUses{}, notFound("secret " + name)
	}
	return api.SecretUses{Name: name, DAGs: []api.SecretDAG{{DAGID: "flow"}}, Attempts: []api.SecretUse{{Version: 2}}, More: 7}, nil
}

func (f *fake) RemoveSecret(_ context.Context, req api.SecretRemoval) (api.SecretRemoved, error) {
	return api.SecretRemoved{DryRun: req.DryRun, Removed: []int64{req.Version}, Secret: api.Secret{Name: req.Name + req.Reason}}, nil
}
