package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/server/api"
)

// proofCheck is what ledger check-proof has found.
type proofCheck struct {
	Origin string `json:"origin"`
	Size   int64  `json:"size"`
	Root   string `json:"root"`

	Seq  *int64 `json:"seq,omitempty"`  // of the entry that is in the tree
	Type string `json:"type,omitempty"` // its
	Time string `json:"time,omitempty"`

	OldSize int64  `json:"oldSize,omitempty"` // of the tree that this one extends
	OldRoot string `json:"oldRoot,omitempty"` // which the proof names, and the caller compares with what he holds
}

func newLedgerCheckProofCmd(a *app) *cobra.Command {
	var logKey, entry string
	c := &cobra.Command{
		Use:   "check-proof PROOF",
		Short: "Check what ledger prove has written, without a site",
		Long: "Check a proof of `ledger prove` by the public key of the ledger. No site is needed.\n\n" +
			"A proof of an entry (C2SP tlog-proof) needs the entry, too: its envelope line, as it stands in\n" +
			"ledger/envelopes.ndjson of an archive, or what `ledger show SEQ --output json` prints. Whether\n" +
			"its data line is the one that the envelope names is a matter of SHA-256: dataHash.\n\n" +
			"A proof of consistency says that a tree extends the first SIZE entries of a root that it\n" +
			"names: compare that root with the one in the note that you hold.\n\n" +
			"Exit 5 if the log's key did not sign the note, 7 if the proof does not hold.",
		Example: "  tar xOf all.tar ledger/envelopes.ndjson.zst | zstd -dc | sed -n 43p > 42.json\n" +
			"  stella ledger check-proof 42.tlog-proof --entry 42.json --log-key site-a.log.pub\n" +
			"  stella ledger check-proof 40-95.proof --log-key site-a.log.pub",
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return runLedgerCheckProof(a, args[0], entry, logKey) },
	}
	c.Flags().StringVar(&logKey, "log-key", "", "`FILE` with the public key of the site's ledger, PEM (required)")
	c.Flags().StringVar(&entry, "entry", "", "`FILE` with the entry, - for stdin")
	_ = c.MarkFlagRequired("log-key")
	return c
}

func runLedgerCheckProof(a *app, path, entry, logKey string) error {
	pub, err := readLogKey(logKey)
	if err != nil {
		return err
	}
	raw, err := fsx.ReadFile(path, ledger.MaxProof)
	if err != nil {
		return fileError(path, err)
	}
	var res proofCheck
	if bytes.HasPrefix(raw, []byte("{")) {
		if entry != "" {
			return invalid("%s is a proof of consistency, in which no entry is", path)
		}
		res, err = checkConsistencyProof(path, raw, pub)
	} else {
		if entry == "" {
			return &api.Error{Code: api.CodeInvalid, Message: path + " is the proof of an entry: that is needed, too",
				Hint: "--entry FILE: its line in ledger/envelopes.ndjson of an archive, or what stella ledger show SEQ --output json prints"}
		}
		res, err = a.checkEntryProof(path, raw, entry, pub)
	}
	if err != nil {
		return err
	}
	return a.emit(res, func(s *screen) {
		if res.Seq != nil {
			s.fields("entry", strconv.FormatInt(*res.Seq, 10), "type", res.Type, "time", res.Time)
		} else {
			s.fields("extends", strconv.FormatInt(res.OldSize, 10)+" entries", "of root", res.OldRoot)
		}
		s.fields("origin", res.Origin, "size", strconv.FormatInt(res.Size, 10), "root", res.Root, "proof", "holds")
	})
}

func (a *app) checkEntryProof(path string, raw []byte, entry string, pub ed25519.PublicKey) (res proofCheck, err error) {
	p, err := ledger.ParseProof(raw)
	if err != nil {
		return res, invalid("%s: %v", path, err)
	}
	head, err := openNote(path, p.Checkpoint, pub)
	if err != nil {
		return res, err
	}
	line, env, err := a.readEnvelope(entry)
	if err != nil {
		return res, err
	}
	site, _, _ := ledger.ParseOrigin(head.Origin) // it was opened
	if _, err := ledger.VerifyProof(raw, line, pub, site); err != nil {
		return res, badProof("%s does not show that the entry of %s is entry %d of the tree of %d: it is another proof, or another entry", path, entry, p.Index, head.Size)
	}
	return proofCheck{Origin: head.Origin, Size: head.Size, Root: ledger.HexHash(head.Root), Seq: &env.Seq, Type: string(env.Type), Time: env.Time}, nil
}

// readEnvelope reads an envelope line, alone or in the JSON of ledger show.
func (a *app) readEnvelope(path string) (line []byte, env ledger.Envelope, err error) {
	const most = 4 * (ledger.MaxEnvelope + ledger.MaxData)
	var raw []byte
	if path == "-" {
		raw, err = io.ReadAll(io.LimitReader(a.stdin, most))
	} else {
		raw, err = fsx.ReadFile(path, most)
	}
	if err != nil {
		return nil, env, fileError(path, err)
	}
	line = bytes.TrimSuffix(raw, []byte("\n"))
	var shown api.LedgerLine
	if err := json.Unmarshal(raw, &shown); err == nil && len(shown.Envelope) > 0 {
		if line, err = jcs.Canonicalize(shown.Envelope); err != nil { // it was indented
			return nil, env, invalid("%s: %v", path, err)
		}
	}
	if env, err = ledger.ParseEnvelope(line); err != nil {
		return nil, env, invalid("%s is no entry: %v", path, err)
	}
	return line, env, nil
}

func checkConsistencyProof(path string, raw []byte, pub ed25519.PublicKey) (res proofCheck, err error) {
	p, proof, err := parseConsistency(path, raw)
	if err != nil {
		return res, err
	}
	old, err := ledger.ParseHash(p.OldRoot)
	if err != nil {
		return res, invalid("%s: %v", path, err)
	}
	head, err := openNote(path, []byte(p.Note), pub)
	if err != nil {
		return res, err
	}
	if err := ledger.CheckConsistency(proof, head.Size, head.Root, p.OldSize, old); err != nil {
		return res, badProof("%s does not show that the tree of %d entries extends that of %d", path, head.Size, p.OldSize)
	}
	return proofCheck{Origin: head.Origin, Size: head.Size, Root: ledger.HexHash(head.Root), OldSize: p.OldSize, OldRoot: p.OldRoot}, nil
}

func badProof(format string, args ...any) error {
	return &outcome{exit: exitDamaged, err: api.Error{Code: codeProof, Message: fmt.Sprintf(format, args...)}}
}
