package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"

	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/provenance"
)

// recordStart writes who is about to execute steps here.
func (e *Engine) recordStart(config []byte) error {
	sum, err := hashSelf(filepath.Join(e.opt.Home, "cache"))
	if err != nil {
		return err
	}
	digest := sha256.Sum256(config)
	own := ledger.SiteStart{
		Stella: e.opt.Version, BinarySHA256: sum, ConfigSHA256: hex.EncodeToString(digest[:]),
		BootID: bootID(), PID: os.Getpid(), Mode: e.opt.Mode,
	}
	seq, err := e.triedBefore(own)
	if err == nil && seq == 0 {
		seq, err = e.db.Append(ledger.SiteStarted, "system:engine", &own)
	}
	if err != nil {
		return err
	}
	e.begun = &provenance.Start{Seq: seq, SiteStart: own}
	if e.opt.Begun != nil {
		*e.opt.Begun = seq
	}
	return nil
}

// triedBefore is the seq of the start that this process has recorded when it opened the site
// before and could not go on; 0 if it has not, or if something has started since: in another
// container that can say the same of itself.
func (e *Engine) triedBefore(own ledger.SiteStart) (int64, error) {
	if e.opt.Begun == nil || *e.opt.Begun == 0 {
		return 0, nil
	}
	for seq := e.db.Size() - 1; seq >= *e.opt.Begun; seq-- {
		l, err := e.db.Entry(seq)
		if err != nil {
			return 0, err
		}
		env, err := ledger.ParseEnvelope(l.Envelope)
		if err != nil {
			return 0, err
		}
		if env.Type != ledger.SiteStarted {
			continue
		}
		if seq > *e.opt.Begun {
			break
		}
		if d, err := dataOf[ledger.SiteStart](env.Type, l.Data); err != nil || *d == own {
			return seq, err
		}
	}
	return 0, nil
}
