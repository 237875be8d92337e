package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"

	"github.com/stellarun/stella/server/api"
)

// artifactsBody is the answer to a list of artifacts.
type artifactsBody struct {
	Artifacts []api.Artifact `json:"artifacts"`
}

func (h *handler) listArtifacts(w http.ResponseWriter, q *request) error {
	list, err := q.site.ListArtifacts(q.Context(), q.id)
	return h.reply(w, q, http.StatusOK, artifactsBody{some(list)}, err)
}

// readArtifact sends the bytes of an artifact. They come from a plugin: whoever
// receives them is told not to render or guess.
func (h *handler) readArtifact(w http.ResponseWriter, q *request) error {
	out := &attachment{w: w, q: q}
	err := q.site.ReadArtifact(q.Context(), q.PathValue("hash"), out)
	if err == nil {
		out.begin() // an empty one was never written to
		return nil
	}
	if !q.began {
		return err
	}
	panic(http.ErrAbortHandler) // the reader must not take what it has for the whole
}

// attachment is an answer that begins with its first byte, so that an error
// before that can still be told.
type attachment struct {
	w http.ResponseWriter
	q *request
}

func (a *attachment) begin() {
	if a.q.began {
		return
	}
	a.q.began = true
	header := a.w.Header()
	header.Set("Content-Type", "application/octet-stream")
	header.Set("Content-Disposition", "attachment")
	header.Set("Content-Security-Policy", "sandbox; default-src 'none'")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-store")
	a.w.WriteHeader(http.StatusOK)
}

func (a *attachment) Write(b []byte) (int, error) {
	a.begin()
	pushDeadline(a.w)
	return a.w.Write(b)
}

// ListArtifacts implements [api.Artifacts].
func (c *Client) ListArtifacts(ctx context.Context, runID string) ([]api.Artifact, error) {
	body, err := get[artifactsBody](ctx, c, call{method: http.MethodGet, path: "/runs/" + segment(runID) + "/artifacts"})
	return body.Artifacts, err
}

// ReadArtifact implements [api.Artifacts]. It hashes what it receives.
func (c *Client) ReadArtifact(ctx context.Context, digest string, w io.Writer) error {
	res, err := c.open(ctx, call{method: http.MethodGet, path: "/artifacts/" + segment(digest)})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	sum := sha256.New()
	in := &answered{r: res.Body}
	if _, err := io.Copy(io.MultiWriter(w, sum), in); err != nil {
		if in.err != nil {
			return lost(ctx, in.err)
		}
		return fmt.Errorf("server: artifact: %w", err)
	}
	if hex.EncodeToString(sum.Sum(nil)) != digest {
		return fmt.Errorf("server: the answer is not artifact %s", digest)
	}
	return nil
}

// answered remembers whether it was the answer that broke off, or the writer
// that it was copied to.
type answered struct {
	r   io.Reader
	err error
}

func (a *answered) Read(p []byte) (int, error) {
	n, err := a.r.Read(p)
	if err != nil && err != io.EOF {
		a.err = err
	}
	return n, err
}
