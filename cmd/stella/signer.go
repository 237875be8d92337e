package main

import (
	"fmt"

	"github.com/stellarun/stella/bundle"
	"github.com/stellarun/stella/verify"
)

// attachment makes a file for a bundle out of one that another tool wrote. It
// must be about this manifest.
func attachment(raw, manifest []byte) (a bundle.Attached, statement bool, err error) {
	canonical, err := verify.Canonical(raw)
	if err != nil {
		return a, false, err
	}
	d, err := verify.Describe(canonical)
	if err != nil {
		return a, false, err
	}
	if d.Statement {
		return bundle.Attached{ID: bundle.Digest(canonical), Data: canonical}, true, nil
	}
	if want := bundle.Digest(manifest); d.Digest != want {
		return a, false, fmt.Errorf("it is a signature over sha256:%s, and the manifest has sha256:%s", d.Digest, want)
	}
	return bundle.Attached{ID: d.ID, Data: canonical}, false, nil
}
