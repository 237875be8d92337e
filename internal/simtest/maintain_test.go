package simtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/server/api"
)

// encrypts has the site encrypt its snapshots.
func (v *victim) encrypts() error {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return err
	}
	v.identity = filepath.Join(filepath.Dir(v.home), "identity")
	if err := os.WriteFile(v.identity, []byte(id.String()+"\n"), 0o600); err != nil {
		return err
	}
	first, rest, _ := strings.Cut(config, "\n")
	text := fmt.Sprintf("%s\nrecovery_recipients = [%q]\n%s", first, id.Recipient(), rest)
	return os.WriteFile(filepath.Join(v.home, "site.toml"), []byte(text), 0o644)
}

// maintainer is the role of a client that makes snapshots and archives, and has erased what was said.
const maintainer = 4

func (c *client) maintain(ctx context.Context) error {
	select {
	case <-time.After(time.Duration(c.rng.IntN(300)) * time.Millisecond):
	case <-ctx.Done():
		return nil
	}
	switch n := c.rng.IntN(10); {
	case n < 6 && !c.real: // it takes two people
		return c.erase(ctx)
	case n < 8:
		return c.archive(ctx)
	}
	return c.snapshot(ctx)
}

// snapshot makes a snapshot, and removes those before the newest.
func (c *client) snapshot(ctx context.Context) error {
	all, err := c.site.ListSnapshots(ctx, "")
	if err != nil {
		return err
	}
	for i := range len(all) - 1 {
		_ = os.RemoveAll(all[i].Path) // the disk may be cut off
	}
	s, err := c.site.CreateSnapshot(ctx, api.SnapshotRequest{}, nil)
	if err != nil {
		return err
	}
	c.count(string(ledger.SnapshotCreated))
	return c.journal.add(ack{Kind: string(ledger.SnapshotCreated), Actor: c.actor, Size: s.Seq + 1, ID: s.ID})
}

// archive moves what ended runs have left into an archive.
func (c *client) archive(ctx context.Context) error {
	out, err := c.site.ArchiveRuns(ctx, api.ArchiveRequest{OlderThanMs: 1}, nil)
	if err != nil || len(out.Archives) == 0 {
		return err
	}
	c.count(string(ledger.ArchiveCreated))
	return c.journal.add(ack{Kind: string(ledger.ArchiveCreated), Actor: c.actor, Size: out.Archives[len(out.Archives)-1].Seq + 1})
}

// restorable: the newest snapshot that a client was told of can be put in the place of the
// site, as the real program says, which looks at each of its files and entries.
func (v *victim) restorable(acks []ack) error {
	newest := ack{}
	for _, k := range acks {
		if k.ID != "" && k.Size > newest.Size {
			newest = k
		}
	}
	if v.stella == "" || newest.ID == v.snapshot {
		return nil
	}
	v.snapshot = newest.ID
	args := []string{"--home", v.home, "maintenance", "restore-snapshot", "--dry-run", "--id", newest.ID}
	if v.identity != "" {
		args = append(args, "--identity", v.identity)
	}
	out, err := exec.Command(v.stella, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("the snapshot %s, which a client was told of: %w: %s", newest.ID, err, out)
	}
	return nil
}
