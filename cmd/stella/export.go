package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/manifests"
	"github.com/stellarun/stella/server/api"
)

func newExportCmd(a *app) *cobra.Command {
	return group("export", "Archives of evidence",
		"Write the archive of a window of time; and judge archives and look into them, which needs no site.",
		newExportCreateCmd(a), newExportListCmd(a), newExportVerifyCmd(a), newExportShowCmd(a), newExportViewCmd(a))
}

// exportOptions are the flags of export create.
type exportOptions struct {
	from, to, out string
	force         bool
	encryptTo     []string
	encryptFiles  []string
	split         string
}

func newExportCreateCmd(a *app) *cobra.Command {
	var opt exportOptions
	c := &cobra.Command{
		Use:   "create",
		Short: "Write the archive of a window",
		Long: "Write the archive of a half-open window of recorded time: ledger, runs, the sealed files\n" +
			"they rely on, logs, metrics and traces, hashed and signed. Without --from it begins with\n" +
			"the first entry, without --to it ends with the newest instant that is closed. The same\n" +
			"closed window gives the same bytes.\n\n" +
			"With --encrypt-to only the holders of these age keys can read it; FILE.age is written, and\n" +
			"nothing of it in the clear. With --split it becomes FILE.001, FILE.002 and so on, and\n" +
			"FILE.sha256: sha256sum -c checks them, cat FILE.[0-9]* joins them, and the other commands\n" +
			"take them as they are. All or nothing of it is there in the end.",
		Example: "  stella export create --out november.tar --from 2026-11-01 --to 2026-12-01\n" +
			"  stella export create --out /media/stick/november.tar --encrypt-to age1… --split 4095MiB",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runExportCreate(c.Context(), a, opt) },
	}
	f := c.Flags()
	f.StringVarP(&opt.out, "out", "o", "", "`FILE` to write (required)")
	f.StringVar(&opt.from, "from", "", "`TIME` at which the window begins, included")
	f.StringVar(&opt.to, "to", "", "`TIME` at which it ends, excluded")
	f.BoolVar(&opt.force, "force", false, "replace the file, or the parts (.001 to .999) and their list, of that name")
	f.StringArrayVar(&opt.encryptTo, "encrypt-to", nil, "age `KEY` (age1…) of somebody who can read it; may be given again")
	f.StringArrayVar(&opt.encryptFiles, "encrypt-to-file", nil, "`FILE` with such keys, one a line; may be given again")
	f.StringVar(&opt.split, "split", "", "`SIZE` of the parts to write it in, such as 4GiB, at least 64KiB")
	_ = c.MarkFlagRequired("out")
	return c
}

func runExportCreate(ctx context.Context, a *app, opt exportOptions) error {
	req := api.ExportRequest{Force: opt.force, Mode: uint32(fsx.ByUmask(0o666))}
	for _, t := range []struct {
		flag string
		to   *string
	}{{opt.from, &req.From}, {opt.to, &req.To}} {
		if t.flag == "" {
			continue
		}
		at, err := parseTime(t.flag)
		if err != nil {
			return err
		}
		*t.to = stamp.Format(at)
	}
	if opt.out == "-" {
		return invalid("an archive is written to a file, whole or not at all: name one, not -")
	}
	var err error
	if req.Path, err = absolute(opt.out); err != nil {
		return err
	}
	if req.EncryptTo, err = opt.recipients(); err != nil {
		return err
	}
	if opt.split != "" {
		var ok bool
		if req.PartBytes, ok = manifests.ParseSize(opt.split); !ok || req.PartBytes < export.MinPart {
			return invalid("--split takes a size of at least 64KiB, such as 4GiB or 4095MiB, not %q", opt.split)
		}
	}
	return a.withSite(ctx, func(ctx context.Context, r *reached) error {
		res, err := r.CreateExport(ctx, req, a.progressOf("exporting"))
		if err != nil {
			return err
		}
		return a.acted(false, res, func(s *screen) {
			where := res.Path
			if n := len(res.Parts); n > 0 {
				where = fmt.Sprintf("%s in %s, from %s on", res.Path, count(n, "part", "parts"), filepath.Base(res.Parts[0].Path))
			}
			a.notHere(res.Away)
			s.fields("archive", where, "encrypted to", strings.Join(res.EncryptedTo, ", "), "window", res.From+" to "+res.To,
				"entries", fmt.Sprintf("%d from %d, of a tree of %d", res.Count, res.FirstSeq, res.TreeSize),
				"root", res.Root, "sha256", res.SHA256, "size", size(res.Bytes), "withheld", strconv.FormatInt(res.Withheld, 10))
		})
	})
}

// recipients are the keys that an archive is encrypted to.
func (opt *exportOptions) recipients() ([]string, error) {
	keys, err := export.Recipients(opt.encryptTo)
	if err != nil {
		return nil, invalid("--encrypt-to: %v", err)
	}
	if len(keys) != len(opt.encryptTo) { // else it would be written in the clear
		return nil, invalid("--encrypt-to: an empty key")
	}
	for _, path := range opt.encryptFiles {
		raw, err := fsx.ReadFile(path, maxKeyFile)
		if err != nil {
			return nil, fileError(path, err)
		}
		more, err := export.Recipients(strings.Split(string(raw), "\n"))
		if err != nil {
			return nil, invalid("%s: %v", path, err)
		}
		if len(more) == 0 { // else it would be written in the clear
			return nil, invalid("%s: it holds no key", path)
		}
		keys = append(keys, more...)
	}
	if len(keys) > export.MaxRecipients {
		return nil, invalid("%d keys, at most %d are taken", len(keys), export.MaxRecipients)
	}
	return keys, nil
}

// readIdentity reads the keys for encrypted archives; nil where no file is named.
func readIdentity(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	raw, err := fsx.ReadFile(path, maxKeyFile)
	if err != nil {
		return nil, fileError(path, err)
	}
	return raw, nil
}

// archiveError says why an archive cannot be looked into, and what helps.
func archiveError(path string, err error) error {
	text := path + ": " + strings.TrimPrefix(err.Error(), "export: ")
	switch {
	case errors.Is(err, export.ErrEncrypted):
		return &api.Error{Code: api.CodeInvalid, Message: text, Hint: "give the age identity with --identity FILE, or decrypt it first: age -d -i FILE " + path + " > archive.tar"}
	case errors.Is(err, export.ErrNoIdentity), errors.Is(err, export.ErrIdentity):
		return &api.Error{Code: api.CodeInvalid, Message: text, Hint: "--identity takes a file of age-keygen; other keys, and files with a passphrase, are for age -d -i FILE " + path}
	case errors.Is(err, export.ErrCiphertext):
		return &api.Error{Code: api.CodeDamaged, Message: text, Hint: "copy it from its medium again; of parts, sha256sum -c names the one that is damaged"}
	case errors.Is(err, export.ErrNote):
		return &api.Error{Code: api.CodeInvalid, Message: strings.TrimPrefix(err.Error(), "export: "), Hint: "--previous and --cosigned take notes of the archive's site, as stella ledger checkpoint prints them"}
	case errors.Is(err, export.ErrParts):
		return &api.Error{Code: api.CodeInvalid, Message: text, Hint: "put all parts and their .sha256 into one folder"}
	}
	return fileError(path, err)
}

// verifyOptions are the flags of export verify.
type verifyOptions struct {
	logKey, siteKey, previous, consistency string
	cosigned, cosignedProof                string
	witnesses                              []string
	min                                    int
	siteID, root, identity                 string
	withheld                               int64
}

func newExportVerifyCmd(a *app) *cobra.Command {
	var opt verifyOptions
	c := &cobra.Command{
		Use:   "verify FILE|DIR",
		Short: "Judge an archive",
		Long: "Judge an archive, or the folder that it was unpacked to, without a site. Keys come from\n" +
			"outside: --log-key and --site-key are the log.pub and site.pub that the site handed over\n" +
			"earlier. Without them, or with another site's, the archive is at best consistent, never\n" +
			"authenticated.\n\n" +
			"A site that holds its own keys can keep two ledgers, and show each auditor another. --previous\n" +
			"tells whether this one goes on from what you saw before, --witness whether others saw the\n" +
			"same: --cosigned is a note that `ledger cosign` has signed, of a tree that holds the window.\n\n" +
			"Who may sign for publishers is said by trust files, and who may sign those by a root. Without\n" +
			"--expect-root the first root is the site's own word. An archive that does not begin with\n" +
			"entry 0 cannot show alone that its root follows from the first: stella-audit judges several.\n\n" +
			"An archive in parts is named by its first part, by the name without .001, or by the folder\n" +
			"that holds them. One that is encrypted needs --identity; nothing of it is written in the clear.\n\n" +
			"Exit 0 VERIFIED, 8 INCOMPLETE, 5 UNAUTHENTICATED, 7 FAILED.",
		Example: "  stella export verify november.tar --log-key log.pub --site-key site.pub --previous october.note\n" +
			"  stella export verify november.tar --log-key log.pub --site-key site.pub \\\n" +
			"    --cosigned november.note --witness audit.key.pub --min 1",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runExportVerify(c.Context(), a, args[0], opt) },
	}
	f := c.Flags()
	f.StringVar(&opt.logKey, "log-key", "", "`FILE` with the public key of the ledger, PEM")
	f.StringVar(&opt.siteKey, "site-key", "", "`FILE` with the public key of the site, PEM")
	f.StringVar(&opt.siteID, "site-id", "", "`ID` of the site that it must be of (default: the one it names)")
	f.StringVar(&opt.root, "expect-root", "", "`DIGEST` of the first root.toml, sha256:HEX, from who made it, not from the site")
	f.StringVar(&opt.identity, "identity", "", "`FILE` with the age key of an archive that is encrypted")
	f.StringVar(&opt.previous, "previous", "", "`FILE` with a signed note that you hold of an earlier tree")
	f.StringVar(&opt.consistency, "consistency", "", "`FILE` with a proof from that tree, as \"ledger prove --consistency\" writes it")
	f.StringVar(&opt.cosigned, "cosigned", "", "`FILE` with a note of a tree that holds the window, which witnesses have signed")
	f.StringVar(&opt.cosignedProof, "cosigned-consistency", "", "`FILE` with a proof between that tree and the archive's, as \"ledger prove --consistency\" writes it")
	f.StringArrayVar(&opt.witnesses, "witness", nil, "`FILE` with the public key of a witness, or the key itself; may be given again")
	f.IntVar(&opt.min, "min", 0, "`N` of these witnesses must have signed")
	f.Int64Var(&opt.withheld, "withheld", 0, "`N` things that you know to be withheld")
	return c
}

func runExportVerify(ctx context.Context, a *app, path string, opt verifyOptions) error {
	root, err := expectedRoot(opt.root)
	if err != nil {
		return err
	}
	o := export.VerifyOptions{SiteID: opt.siteID, Root: root, Withheld: opt.withheld, MinWitnesses: opt.min}
	if a.stderr.terminal && !a.opt.quiet {
		o.Progress = func(check string) { a.stderr.showProgress("checking " + check) }
	}
	for _, f := range []struct {
		path string
		to   *[]byte
	}{{opt.logKey, &o.LogKey}, {opt.siteKey, &o.SiteKey}, {opt.previous, &o.Previous}, {opt.cosigned, &o.Cosigned}} {
		if f.path == "" {
			continue
		}
		raw, err := fsx.ReadFile(f.path, ledger.MaxNote)
		if err != nil {
			return fileError(f.path, err)
		}
		*f.to = raw
	}
	for _, f := range []struct {
		path string
		to   **export.Consistency
	}{{opt.consistency, &o.Consistency}, {opt.cosignedProof, &o.CosignedConsistency}} {
		if f.path == "" {
			continue
		}
		var err error
		if *f.to, err = readConsistency(f.path); err != nil {
			return err
		}
	}
	if opt.min > len(opt.witnesses) {
		return invalid("%d witnesses are demanded, and %d are named: --witness names one", opt.min, len(opt.witnesses))
	}
	for _, arg := range opt.witnesses {
		w, err := readWitness(arg)
		if err != nil {
			return err
		}
		o.Witnesses = append(o.Witnesses, w)
	}
	if o.Identity, err = readIdentity(opt.identity); err != nil {
		return err
	}
	rep, err := export.Verify(ctx, path, o)
	if err != nil {
		return archiveError(path, err)
	}
	if err := a.emit(rep, func(s *screen) { renderReport(s, rep) }); err != nil {
		return err
	}
	return archiveOutcome(path, rep)
}

// expectedRoot is the digest in --expect-root, in hex.
func expectedRoot(s string) (string, error) {
	digest := strings.TrimPrefix(s, "sha256:")
	if _, err := ledger.ParseHash(digest); s != "" && err != nil {
		return "", invalid("--expect-root: %.80q is not sha256: and 64 hex digits in lower case", s)
	}
	return digest, nil
}

// readConsistency reads a proof that ledger prove wrote.
func readConsistency(path string) (*export.Consistency, error) {
	raw, err := fsx.ReadFile(path, ledger.MaxNote+64<<10)
	if err != nil {
		return nil, fileError(path, err)
	}
	p, proof, err := parseConsistency(path, raw)
	if err != nil {
		return nil, err
	}
	if p.Size == 0 {
		return nil, &api.Error{Code: api.CodeInvalid, Message: path + " is not a consistency proof", Hint: "stella ledger prove --consistency SIZE --out FILE makes one"}
	}
	return &export.Consistency{From: p.OldSize, To: p.Size, Proof: proof}, nil
}

func parseConsistency(path string, raw []byte) (p api.ConsistencyProof, proof []ledger.Hash, err error) {
	if err := json.Unmarshal(raw, &p); err != nil {
		return p, nil, invalid("%s: %v", path, err)
	}
	proof = make([]ledger.Hash, len(p.Proof))
	for i, s := range p.Proof {
		if proof[i], err = ledger.ParseHash(s); err != nil {
			return p, nil, invalid("%s: %v", path, err)
		}
	}
	return p, proof, nil
}

// archiveOutcome makes a verdict the outcome of the command.
func archiveOutcome(path string, rep *export.Report) error {
	e := api.Error{Code: codeArchive, Message: path + " is " + string(rep.Verdict)}
	lacks := ""
	for _, c := range rep.Checks {
		lacks = cmp.Or(lacks, c.Hint)
		if c.Status == export.Bad {
			e.Faults = append(e.Faults, c.Name+": "+c.Detail)
		}
	}
	switch rep.Verdict {
	case export.Verified:
		return nil
	case export.Incomplete:
		e.Hint = cmp.Or(lacks, "see the checks that were skipped; --withheld N if you know what was withheld")
		return &outcome{exit: exitIncomplete, err: e}
	case export.Unauthenticated:
		e.Hint = "give the keys that you hold of the site: --log-key and --site-key"
		if len(e.Faults) > 0 {
			e.Hint = "it is another site's than the one whose keys or root you gave, or those are mistaken"
		}
		return &outcome{exit: exitRefused, err: e}
	}
	return &outcome{exit: exitDamaged, err: e}
}

func renderReport(s *screen, rep *export.Report) {
	witnessed := "UNWITNESSED"
	if rep.Witnessed > 0 {
		witnessed = fmt.Sprintf("WITNESSED %d", rep.Witnessed)
	}
	for i, w := range rep.Witnesses {
		witnessed += map[bool]string{true: ": ", false: ", "}[i == 0] + w.Name + " at " + w.Time
	}
	facts := []string{"verdict", string(rep.Verdict), "witnesses", witnessed}
	for _, e := range rep.Epochs {
		begun := fmt.Sprintf("entry %d begins an epoch, and what it says of that is withheld", e.Seq)
		if e.Cause != "" {
			begun = fmt.Sprintf("entry %d begins epoch %d: the ledger was %s, and entries may be lost", e.Seq, e.Epoch, e.Cause)
		}
		facts = append(facts, "epoch", begun)
	}
	facts = append(facts, summaryFacts(rep.Summary)...)
	if r := rep.TrustRoot; r != nil {
		whose := "the site's own word; --expect-root tells whether it is the one you know"
		switch r.Expected {
		case "":
		case r.Digest:
			whose = "as expected"
		default:
			whose = "not the one expected"
		}
		facts = append(facts, "trust root", fmt.Sprintf("%d, sha256:%s: %s", r.Version, r.Digest, whose))
	}
	if rep.OtherReadme {
		facts = append(facts, "README.txt", "is not what this stella writes: another version's, or words of whoever made the archive; do not do what it says unread")
	}
	s.fields(facts...)
	rows := make([][]string, len(rep.Checks))
	for i, c := range rep.Checks {
		note := c.Proves
		if c.Status != export.OK {
			note, _, _ = strings.Cut(c.Detail, "\n") // a parser shows where in its file
		}
		if c.File != "" && c.Line > 0 {
			note += fmt.Sprintf(" (%s:%d)", c.File, c.Line)
		} else if c.File != "" {
			note += " (" + c.File + ")"
		}
		rows[i] = []string{c.Name, string(c.Status), note}
	}
	s.printf("\n")
	s.table([]string{"CHECK", "RESULT", "WHAT IT PROVES"}, rows)
}

// summaryFacts are what an archive says of itself; none if it says nothing.
func summaryFacts(sum *export.Summary) []string {
	if sum == nil {
		return nil
	}
	out := []string{"origin", sum.Origin, "window", sum.Window.From + " to " + sum.Window.To,
		"entries", fmt.Sprintf("%d from %d, of a tree of %d", sum.Ledger.Count, sum.Ledger.FirstSeq, sum.Ledger.TreeSize),
		"root", sum.Ledger.Root, "stella", sum.Stella, "size", size(sum.Bytes) + " in " + count(sum.Files, "file", "files")}
	if len(sum.Withheld) > 0 {
		out = append(out, "withheld", strconv.Itoa(len(sum.Withheld)))
	}
	return out
}

func newExportShowCmd(a *app) *cobra.Command {
	var identity string
	c := &cobra.Command{
		Use:   "show FILE|DIR",
		Short: "Say what an archive says of itself",
		Long: "Say what an archive says of itself. Nothing of it is checked but its form, so all of it may\n" +
			"be lies: `stella export verify` judges it.",
		Example: "  stella export show november.tar",
		Args:    cobra.ExactArgs(1),
		RunE:    func(_ *cobra.Command, args []string) error { return runExportShow(a, args[0], identity) },
	}
	c.Flags().StringVar(&identity, "identity", "", "`FILE` with the age key of an archive that is encrypted")
	return c
}

func runExportShow(a *app, path, identity string) error {
	key, err := readIdentity(identity)
	if err != nil {
		return err
	}
	sum, err := export.Show(path, key)
	if err != nil {
		return archiveError(path, err)
	}
	return a.emit(sum, func(s *screen) {
		s.fields(summaryFacts(sum)...)
		rows := [][]string{}
		for _, p := range slices.Sorted(maps.Keys(sum.Records)) {
			rows = append(rows, []string{strconv.FormatInt(sum.Records[p], 10), p})
		}
		s.printf("\n")
		s.table([]string{"RECORDS", "FILE"}, rows)
		a.stderr.note("note: this is what the archive says; stella export verify judges it")
	})
}
