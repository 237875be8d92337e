package server

import (
	"context"
	"net/http"

	"github.com/stellarun/stella/server/api"
)

type secretsBody struct {
	Secrets []api.Secret `json:"secrets"`
}

func (h *handler) listSecrets(w http.ResponseWriter, q *request) error {
	list, err := q.site.ListSecrets(q.Context())
	return h.reply(w, q, http.StatusOK, secretsBody{some(list)}, err)
}

func (h *handler) setSecret(w http.ResponseWriter, q *request) error {
	return h.addSecret(w, q, q.site.SetSecret)
}

func (h *handler) rotateSecret(w http.ResponseWriter, q *request) error {
	return h.addSecret(w, q, q.site.RotateSecret)
}

func (h *handler) addSecret(w http.ResponseWriter, q *request, add func(context.Context, api.SecretRequest) (api.Secret, error)) error {
	var req api.SecretRequest
	if err := q.decode(&req); err != nil {
		return err
	}
	if err := q.names("secret", &req.Name); err != nil {
		return err
	}
	out, err := add(q.Context(), req)
	out.Versions, out.Granted = some(out.Versions), some(out.Granted)
	return h.reply(w, q, http.StatusOK, out, err)
}

func (h *handler) secretUses(w http.ResponseWriter, q *request) error {
	out, err := q.site.SecretUses(q.Context(), q.id)
	out.DAGs, out.Attempts = some(out.DAGs), some(out.Attempts)
	return h.reply(w, q, http.StatusOK, out, err)
}

func (h *handler) removeSecret(w http.ResponseWriter, q *request) error {
	var req api.SecretRemoval
	if err := q.decode(&req); err != nil {
		return err
	}
	if err := q.names("secret", &req.Name); err != nil {
		return err
	}
	out, err := q.site.RemoveSecret(q.Context(), req)
	out.Removed = some(out.Removed)
	return h.reply(w, q, http.StatusOK, out, err)
}

// names takes over the name in the path, which a body may repeat.
func (q *request) names(what string, name *string) error {
	if q.id == "" {
		return nil
	}
	if *name != "" && *name != q.id {
		return invalid("the path names the %s %q, the body %q", what, q.id, *name)
	}
	*name = q.id
	return nil
}

// SetSecret implements [api.Secrets].
func (c *Client) SetSecret(ctx context.Context, req api.SecretRequest) (api.Secret, error) {
	return get[api.Secret](ctx, c, call{method: http.MethodPost, path: "/secrets", body: req})
}

// RotateSecret implements [api.Secrets].
func (c *Client) RotateSecret(ctx context.Context, req api.SecretRequest) (api.Secret, error) {
	return get[api.Secret](ctx, c, call{method: http.MethodPost, path: "/secrets/" + segment(req.Name) + ":rotate", body: req})
}

// ListSecrets implements [api.Secrets].
func (c *Client) ListSecrets(ctx context.Context) ([]api.Secret, error) {
	body, err := get[secretsBody](ctx, c, call{method: http.MethodGet, path: "/secrets"})
	return body.Secrets, err
}

// SecretUses implements [api.Secrets].
func (c *Client) SecretUses(ctx context.Context, name string) (api.SecretUses, error) {
	return get[api.SecretUses](ctx, c, call{method: http.MethodGet, path: "/secrets/" + segment(name) + "/uses"})
}

// RemoveSecret implements [api.Secrets].
func (c *Client) RemoveSecret(ctx context.Context, req api.SecretRemoval) (api.SecretRemoved, error) {
	return get[api.SecretRemoved](ctx, c, call{method: http.MethodPost, path: "/secrets/" + segment(req.Name) + ":remove", body: req})
}
