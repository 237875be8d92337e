package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/export"
	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
	"github.com/stellarun/stella/server/api"
)

// What a witness does: somebody other than the site, who signs its tree heads after having
// seen that they only grow. It needs no site, and no network: notes and proofs are carried.

func newLedgerKeygenCmd(a *app) *cobra.Command {
	var name, out string
	c := &cobra.Command{
		Use:   "keygen",
		Short: "Make the key of a witness",
		Long: "Make the key with which a witness signs the tree heads of sites: a private key, readable by\n" +
			"you alone, and the public key beside it as FILE.pub, which auditors are given. NAME is a\n" +
			"name in the form of a URL without scheme. Nothing is replaced. A witness is worth something\n" +
			"only outside the hands that run the site: keep its key away from there.",
		Example: "  stella ledger keygen --name witness.example/audit --out audit.key",
		Args:    cobra.NoArgs,
		RunE:    func(*cobra.Command, []string) error { return runLedgerKeygen(a, name, out) },
	}
	c.Flags().StringVar(&name, "name", "", "`NAME` of the witness, without blanks and plus signs (required)")
	c.Flags().StringVarP(&out, "out", "o", "", "`FILE` of the private key (required)")
	_ = c.MarkFlagRequired("name")
	_ = c.MarkFlagRequired("out")
	return c
}

func runLedgerKeygen(a *app, name, out string) error {
	if err := outsideSites(out); err != nil {
		return err
	}
	for _, path := range []string{out, out + ".pub"} {
		if err := absent(path); err != nil {
			return err
		}
	}
	var seed [ed25519.SeedSize]byte
	rand.Read(seed[:])
	k, err := ledger.NewWitnessKey(name, seed[:])
	if err != nil {
		return invalid("--name %s: %v", name, err)
	}
	if err := fsx.WriteFile(out, []byte(k.Private()+"\n"), 0o600); err != nil {
		return fileError(out, err)
	}
	if err := fsx.WriteFile(out+".pub", []byte(k.String()+"\n"), 0o644); err != nil {
		return fileError(out+".pub", err)
	}
	return a.acted(false, map[string]string{"key": k.String(), "private": out, "public": out + ".pub"}, func(s *screen) {
		s.fields("key", k.String(), "private", out, "public", out+".pub")
	})
}

// cosignOptions are the flags of ledger cosign.
type cosignOptions struct {
	key, logKey, state, out string
	dryRun                  bool
}

func newLedgerCosignCmd(a *app) *cobra.Command {
	var opt cosignOptions
	c := &cobra.Command{
		Use:   "cosign NOTE|PROOF",
		Short: "Sign a site's tree head as a witness",
		Long: "Sign the tree head of a site as a witness (C2SP cosignature/v1), and write the note with the\n" +
			"signature added. No site is needed. The witness remembers in --state the last tree head of\n" +
			"each site that it has signed: a smaller tree, or another one of the same size, is refused,\n" +
			"and of a larger one a proof has to show that it extends the last. A site that is new to the\n" +
			"witness is taken as it is: then the note is enough that `ledger checkpoint` prints, or that\n" +
			"lies in an archive. Later it is the file of `ledger prove --consistency`, which holds note\n" +
			"and proof. The note that comes back travels beside the archives; auditors give it to\n" +
			"`export verify --cosigned`.\n\n" +
			"Exit 5 if the log's key did not sign the note, 7 if there are two histories.",
		Example: "  stella ledger checkpoint > /media/stick/site-a.note\n" +
			"  stella ledger cosign /media/stick/site-a.note --key audit.key --log-key site-a.log.pub \\\n" +
			"    --state witnessed --out /media/stick/site-a.cosigned.note\n" +
			"  stella ledger prove --consistency 40 --out /media/stick/site-a.proof\n" +
			"  stella ledger cosign /media/stick/site-a.proof --key audit.key --log-key site-a.log.pub --state witnessed",
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return runLedgerCosign(a, args[0], opt) },
	}
	f := c.Flags()
	f.StringVar(&opt.key, "key", "", "`FILE` of the witness's private key (required)")
	f.StringVar(&opt.logKey, "log-key", "", "`FILE` with the public key of the site's ledger, PEM (required)")
	f.StringVar(&opt.state, "state", "", "`DIR` where the witness keeps what it has signed (required)")
	f.StringVarP(&opt.out, "out", "o", "", "`FILE` to write (default stdout)")
	f.BoolVar(&opt.dryRun, "dry-run", false, "judge the note, and sign nothing")
	for _, name := range []string{"key", "log-key", "state"} {
		_ = c.MarkFlagRequired(name)
	}
	return c
}

// cosignResult is what ledger cosign has found.
type cosignResult struct {
	Origin  string `json:"origin"`
	Size    int64  `json:"size"`
	Root    string `json:"root"`
	Before  int64  `json:"before"` // size that was signed last, 0 if none was
	Witness string `json:"witness"`
	Time    string `json:"time,omitempty"` // by which it was signed; "" where nothing was
	Note    string `json:"note,omitempty"` // with the cosignature
}

func runLedgerCosign(a *app, path string, opt cosignOptions) error {
	key, err := readWitnessKey(a, opt.key)
	if err != nil {
		return err
	}
	logKey, err := readLogKey(opt.logKey)
	if err != nil {
		return err
	}
	if logKey.Equal(key.Key) {
		return invalid("%s is the key of the site itself: nobody is a witness of his own", opt.key)
	}
	raw, proof, err := readNoteOrProof(path)
	if err != nil {
		return err
	}
	head, err := openNote(path, raw, logKey)
	if err != nil {
		return err
	}
	if opt.out != "" && opt.out != "-" {
		if err := absent(opt.out); err != nil {
			return err
		}
	}
	unlock, err := lockState(opt.state)
	if err != nil {
		return err
	}
	defer unlock()
	site, _, _ := ledger.ParseOrigin(head.Origin) // it was opened
	kept := filepath.Join(opt.state, site+".note")
	before, err := extendsKept(kept, head, logKey, proof)
	if err != nil {
		return err
	}
	now := a.now()
	res := cosignResult{Origin: head.Origin, Size: head.Size, Root: ledger.HexHash(head.Root), Before: before, Witness: key.String()}
	if !opt.dryRun {
		signed, err := key.Cosign(raw, now)
		if errors.Is(err, ledger.ErrCosigned) {
			return &api.Error{Code: api.CodeConflict, Message: path + " is cosigned by this witness already"}
		}
		if err != nil {
			return invalid("%s: %v", path, err)
		}
		if err := fsx.WriteFile(kept, signed, 0o600); err != nil { // before anybody has it: what was signed is never forgotten
			return fileError(kept, err)
		}
		res.Time, res.Note = stamp.Format(now), string(signed)
		if opt.out != "" && opt.out != "-" {
			if err := a.deliver(opt.out, signed); err != nil {
				return err
			}
		} else if a.opt.output == outTable {
			return a.deliver("", signed)
		}
	}
	return a.acted(opt.dryRun, res, func(s *screen) { cosignText(s, res, key.Name, opt.out) })
}

func cosignText(s *screen, res cosignResult, witness, out string) {
	last := "none"
	if res.Before > 0 {
		last = fmt.Sprintf("size %d", res.Before)
	}
	s.fields("origin", res.Origin, "size", strconv.FormatInt(res.Size, 10), "root", res.Root, "before", last, "witness", witness, "note", out)
}

// extendsKept holds a tree head against the last one of its site that was signed, and
// returns the size of that, 0 where there is none. The proof is nil where there is none.
func extendsKept(kept string, head ledger.Checkpoint, logKey ed25519.PublicKey, proof *export.Consistency) (int64, error) {
	raw, err := fsx.ReadFile(kept, ledger.MaxNote)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fileError(kept, err)
	}
	last, err := openNote(kept, raw, logKey)
	if err != nil {
		return 0, err
	}
	forked := func(hint, format string, args ...any) error {
		return &outcome{exit: exitDamaged, err: api.Error{Code: codeForked, Message: fmt.Sprintf(format, args...), Hint: hint}}
	}
	keep := "keep both notes: they prove it; " + kept + " is the earlier one"
	unproved := func(format string, args ...any) error {
		return &api.Error{Code: api.CodeInvalid, Message: fmt.Sprintf(format, args...),
			Hint: fmt.Sprintf("at the site: stella ledger prove --consistency %d --to %d --out FILE; it holds the note, too, and is what to sign here", last.Size, head.Size)}
	}
	switch {
	case head.Size < last.Size:
		return 0, forked("where the site has no head of "+strconv.FormatInt(last.Size, 10)+" entries or more, keep both notes; "+kept+" is the earlier one",
			"the tree of %s has %d entries, and had %d when it was signed last: this is an older head, or it was set back", head.Origin, head.Size, last.Size)
	case head.Size == last.Size && head.Root != last.Root:
		return 0, forked(keep, "the tree of %s has another root than when it was signed last with as many entries: there are two histories", head.Origin)
	case head.Size == last.Size:
		return last.Size, nil
	case proof == nil:
		return 0, unproved("the tree has grown from %d to %d entries: whether it extends the last one, only a proof can tell", last.Size, head.Size)
	case proof.From != last.Size:
		return 0, unproved("this proof begins at a tree of %d entries, and the last one that was signed has %d", proof.From, last.Size)
	}
	if err := ledger.CheckConsistency(proof.Proof, head.Size, head.Root, last.Size, last.Root); err != nil {
		return 0, forked(keep, "the proof does not show that the tree of %d entries extends that of %d: it is a false one, or there are two histories", head.Size, last.Size)
	}
	return last.Size, nil
}

// readNoteOrProof reads a tree head, or a proof with the tree head in it: nil of a note alone.
func readNoteOrProof(path string) (note []byte, proof *export.Consistency, err error) {
	raw, err := fsx.ReadFile(path, ledger.MaxNote+64<<10)
	if err != nil {
		return nil, nil, fileError(path, err)
	}
	if !bytes.HasPrefix(raw, []byte("{")) {
		return raw, nil, nil
	}
	p, hashes, err := parseConsistency(path, raw)
	return []byte(p.Note), &export.Consistency{From: p.OldSize, To: p.Size, Proof: hashes}, err
}

// outsideSites refuses a file of a witness in the home of a site, whose operator can read and
// replace it: what a site signs for itself witnesses nothing.
func outsideSites(path string) error {
	dir, err := filepath.Abs(path)
	if err == nil {
		dir, err = filepath.EvalSymlinks(filepath.Dir(dir))
	}
	for err == nil {
		if _, err := os.Lstat(filepath.Join(dir, "site.toml")); err == nil {
			if _, err := os.Lstat(filepath.Join(dir, "ledger.db")); err == nil {
				return &api.Error{Code: api.CodeInvalid, Message: path + " lies in the home of a site, " + dir + ": nobody is a witness of his own",
					Hint: "keep the keys of a witness with the witness, outside of any site"}
			}
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
		dir = filepath.Dir(dir)
	}
	return nil // what is not there is for the caller to say
}

func readWitnessKey(a *app, path string) (ledger.WitnessKey, error) {
	if err := outsideSites(path); err != nil {
		return ledger.WitnessKey{}, err
	}
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
		a.stderr.note("warning: " + path + " can be read by others (chmod 600)")
	}
	raw, err := fsx.ReadFile(path, 4<<10)
	if err != nil {
		return ledger.WitnessKey{}, fileError(path, err)
	}
	k, err := ledger.ParseWitnessKey(strings.TrimSuffix(string(raw), "\n"))
	if err != nil {
		return k, &api.Error{Code: api.CodeInvalid, Message: path + " is not the private key of a witness", Hint: "stella ledger keygen makes one"}
	}
	return k, nil
}

// readWitness reads the public key of a witness: a file that holds it, or itself.
func readWitness(arg string) (ledger.Witness, error) {
	if w, err := ledger.ParseWitness(arg); err == nil {
		return w, nil
	}
	if err := outsideSites(arg); err != nil {
		return ledger.Witness{}, err
	}
	raw, err := fsx.ReadFile(arg, 4<<10)
	if err != nil {
		return ledger.Witness{}, fileError(arg, err)
	}
	w, err := ledger.ParseWitness(strings.TrimSuffix(string(raw), "\n"))
	if err != nil {
		return w, &api.Error{Code: api.CodeInvalid, Message: arg + " is not the public key of a witness", Hint: "stella ledger keygen writes it beside the private one"}
	}
	return w, nil
}

// readLogKey reads log.pub.
func readLogKey(path string) (ed25519.PublicKey, error) {
	raw, err := fsx.ReadFile(path, 64<<10)
	if err != nil {
		return nil, fileError(path, err)
	}
	if block, _ := pem.Decode(raw); block != nil {
		if pub, err := x509.ParsePKIXPublicKey(block.Bytes); err == nil {
			if key, ok := pub.(ed25519.PublicKey); ok {
				return key, nil
			}
		}
	}
	return nil, &api.Error{Code: api.CodeInvalid, Message: path + " is not the public key of a ledger", Hint: "it is the log.pub that the site handed over"}
}

// openNote reads a tree head that the key of a log must have signed.
func openNote(path string, raw []byte, logKey ed25519.PublicKey) (ledger.Checkpoint, error) {
	head, err := ledger.ParseCheckpoint(raw)
	if err != nil {
		return head, invalid("%s: %v", path, err)
	}
	site, _, err := ledger.ParseOrigin(head.Origin)
	if err == nil {
		head, err = ledger.OpenCheckpoint(raw, logKey, site)
	}
	if err != nil {
		return head, &outcome{exit: exitRefused, err: api.Error{Code: codeNote,
			Message: fmt.Sprintf("%s is not signed by the key of the log that was given (%s…)", path, hex.EncodeToString(logKey[:8])),
			Hint:    "--log-key is the log.pub that the site handed over earlier, not one that comes with the note"}}
	}
	return head, nil
}

// lockState makes and locks the folder of what a witness has signed.
func lockState(dir string) (unlock func(), err error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fileError(dir, err)
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, fileError(dir, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, &api.Error{Code: api.CodeLocked, Message: dir + " is in use by another witness", Hint: "wait for it"}
	}
	return func() { f.Close() }, nil
}
