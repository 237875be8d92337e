package verify

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/manifests"
)

// maxTrustBundle bounds the contents of a bundle of kind trust together, which
// are held in memory while they are judged.
const maxTrustBundle = 16 << 20

// trustBlob verifies a content of a bundle of kind trust and keeps it.
func (c *checking) trustBlob(b *bundle.Blob) error {
	total := b.Size
	for _, raw := range c.taken {
		total += int64(len(raw))
	}
	if total > maxTrustBundle {
		return reject(TrustInvalid, b.Files[0].Path, "the trust files have more than %d bytes", maxTrustBundle)
	}
	var content bytes.Buffer
	if err := c.copyBlob(b, &content); err != nil {
		return err
	}
	if c.taken == nil {
		c.taken = map[string][]byte{}
	}
	c.taken[b.SHA256] = content.Bytes()
	return nil
}

// successor judges what a bundle of kind trust would put in force. One that was
// admitted before, and is older than what is in force now, changes nothing.
func (c *checking) successor(m *manifests.Bundle) error {
	if m.Kind != manifests.KindTrust || c.opt.Files == nil {
		return nil
	}
	files, err := c.opt.Files.With(m, func(f manifests.File) ([]byte, error) {
		raw, ok := c.taken[f.SHA256]
		if !ok {
			return nil, fmt.Errorf("%s is left out of the bundle", f.Path)
		}
		return raw, nil
	})
	if err != nil {
		return reject(TrustInvalid, m.Ref(), "%v", err).because(err)
	}
	next, err := c.trust.Successor(files, c.opt.Now)
	var refused *RejectError
	if c.again && errors.As(err, &refused) && refused.Reason == TrustRollback {
		return nil
	}
	if err != nil {
		return err
	}
	if before := c.trust.Change(""); before.Same(next.Change("")) {
		return nil
	}
	c.res.Next, c.res.NextFiles = next, files
	return nil
}
