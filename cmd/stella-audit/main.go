// Command stella-audit judges archives of evidence (stella.archive/1) a second time. It is written from docs/format.md,
// shares no code with stella, and is small enough to be read before it is believed. The comment of each check names the
// part of that document that it follows.
//
// It holds in memory the manifest, a hash and a name for each run of the window, and one line, with what it is parsed to:
// below 100 MB for ordinary archives, below 6 GiB for the largest that the format allows. What is larger is refused.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

const usage = `usage: stella-audit --log-key FILE --site-key FILE [flags] ARCHIVE...

Judges archives without stella and without a site, by keys and notes from outside. Several archives of one site, in the
order of their windows, must also meet: nothing was left out between them.

  stella-audit --log-key log.pub --site-key site.pub november.tar
  stella-audit --log-key log.pub --site-key site.pub --previous october.note october.tar november.tar
  stella-audit --log-key log.pub --site-key site.pub --cosigned november.note --witness w.pub --min 1 november.tar

Exit 0 VERIFIED, 5 UNAUTHENTICATED, 8 INCOMPLETE, 7 FAILED, 1 not judged at all.
Left to "stella export verify": whether what runs.ndjson sums up, metrics and traces follow from the entries, and the one
form of compressed files and log lines. Nobody can tell whether the site recorded all it did.

`

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// options are what the auditor knows from outside.
type options struct {
	logKey, siteKey, previous, cosigned []byte
	consistency, cosignedProof          [][]byte
	witnesses                           []named
	min, withheld                       int
	siteID                              string
}

// run is main; it returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	f, opt, worst := flag.NewFlagSet("stella-audit", flag.ContinueOnError), options{}, verified
	f.SetOutput(stderr)
	f.Usage = func() { fmt.Fprint(stderr, usage); f.PrintDefaults() }
	file := func(name, text string, use func(raw []byte)) {
		f.Func(name, text, func(path string) error { // what is larger is cut, and then malformed
			use(try(io.ReadAll(io.LimitReader(try(os.Open(path)), maxSmall))))
			return nil
		})
	}
	file("log-key", "`FILE` with the public key of the ledger, PEM", func(raw []byte) { opt.logKey = parseKey(raw, true) })
	file("site-key", "`FILE` with the public key of the site, PEM", func(raw []byte) { opt.siteKey = parseKey(raw, false) })
	file("previous", "`NOTE` that you hold of an earlier tree", func(raw []byte) { opt.previous = raw })
	file("consistency", "`FILE` with a proof between that tree and the archive's", func(raw []byte) { opt.consistency = hashes(list(parse(raw), "proof")) })
	file("cosigned", "`NOTE` of a tree that holds the window, signed by witnesses", func(raw []byte) { opt.cosigned = raw })
	file("cosigned-consistency", "`FILE` with a proof between that tree and the archive's", func(raw []byte) { opt.cosignedProof = hashes(list(parse(raw), "proof")) })
	file("witness", "`FILE` with the public key of a witness; may be given again", func(raw []byte) { opt.witnesses = append(opt.witnesses, parseWitness(raw)) })
	f.IntVar(&opt.min, "min", 0, "`N` of these witnesses must have signed")
	f.IntVar(&opt.withheld, "withheld", 0, "`N` things that you know to be withheld")
	f.StringVar(&opt.siteID, "site-id", "", "`ID` of the site that it must be of")
	fault := outcome(func() {
		if err := f.Parse(args); err != flag.ErrHelp {
			demand(err == nil && f.NArg() > 0, "no archive to judge; see -h")
			demand(opt.min <= len(opt.witnesses), "%d witnesses are demanded, and %d are named", opt.min, len(opt.witnesses))
			var before *audit
			for _, path := range f.Args() {
				before = judge(path, opt, before)
				worst = max(worst, before.print(stdout, path))
			}
		}
	})
	if fault.status != "ok" {
		fmt.Fprintln(stderr, "stella-audit:", fault.text)
		return 1
	}
	return [...]int{0, 8, 5, 7}[worst]
}

const verified, incomplete, unauthenticated, failed = 0, 1, 2, 3 // the verdicts of part 7, the better first

// A finding is the outcome of a check, with the verdict that the archive has at best. All but ok end the check by a
// panic, which outcome catches: so checks read as lists of what they demand.
type finding struct {
	name, status, text string
	verdict            int
}

func stopIf(stop bool, status string, verdict int, why string, args ...any) {
	if stop {
		panic(finding{"", status, fmt.Sprintf(why, args...), verdict})
	}
}

func demand(ok bool, why string, args ...any) { stopIf(!ok, "failed", failed, why, args...) }
func try[T any](v T, err error) T             { demand(err == nil, "%v", err); return v }

func outcome(f func()) (found finding) {
	defer func() {
		if p := recover(); p != nil {
			found = p.(finding)
		}
	}()
	f()
	return finding{status: "ok"}
}

// audit is one archive under judgement.
type audit struct {
	options
	file               *os.File
	members            map[string]*member
	manifest, window   any
	first, count, size int64 // of the manifest's ledger: the window's entries, and the tree
	from, to, site     string
	logIn, siteIn      []byte // the keys inside, as SPKI
	note               *note
	roots              map[uint64][]byte // of the tree, at sizes that somebody asks for
	runs               map[string][]byte // run → hash over its envelopes in the window
	reasons            map[string]string // of what is declared as withheld
	met, unknown       map[string]bool   // what of that some entry lacks; types of entries that are not known here
	genesis            any               // data of entry 0
	witnessed          int
	results            []finding
}

// judge makes the checks in the order of part 7, each unless one that it needs was not passed.
func judge(path string, opt options, before *audit) *audit {
	a := &audit{options: opt, members: map[string]*member{}, roots: map[uint64][]byte{}, runs: map[string][]byte{},
		reasons: map[string]string{}, met: map[string]bool{}, unknown: map[string]bool{}}
	demand(try(os.Stat(path)).Mode().IsRegular(), "%s is not a file", path)
	a.file = try(os.Open(path))
	defer a.file.Close()
	for _, c := range []struct {
		name, needs string
		make        func()
	}{
		{"form", "", a.checkForm}, {"signature", "form", a.checkSignature}, {"sums", "form", a.checkSums},
		{"manifest", "sums", a.checkManifest}, {"content", "manifest", a.checkContent}, {"window", "manifest", a.checkWindow},
		{"checkpoint", "manifest", a.checkCheckpoint}, {"keys", "signature checkpoint", a.checkKeys},
		{"envelopes", "content window", a.checkEnvelopes}, {"root", "envelopes checkpoint", a.checkRoot}, {"edges", "envelopes", a.checkEdges},
		{"previous", "root", a.checkPrevious}, {"witnesses", "root", a.checkWitnesses}, {"data", "envelopes", a.checkData},
		{"genesis", "data keys", a.checkGenesis}, {"runs", "data", a.checkRuns}, {"evidence", "data", a.checkEvidence},
		{"verdicts", "evidence", a.checkVerdicts}, {"logs", "data", a.checkLogs}, {"withheld", "runs evidence logs", a.checkWithheld},
		{"derived", "", func() { stopIf(true, "not judged", verified, "what runs.ndjson sums up, metrics, traces") }},
		{"meets", "root", func() { a.checkMeets(before) }},
	} {
		found := outcome(func() {
			for _, r := range a.results { // keys of somebody else keep nothing from being judged
				lost := slices.Contains(strings.Fields(c.needs), r.name) && (r.verdict == failed || r.status == "not judged")
				stopIf(lost, "not judged", verified, "it needs %s", r.name)
			}
			c.make()
		})
		found.name = c.name
		a.results = append(a.results, found)
	}
	return a
}

// print shows the results, and gives the verdict.
func (a *audit) print(w io.Writer, path string) (worst int) {
	fmt.Fprintf(w, "archive  %q\nsite     %s\nwindow   %s to %s\nentries  %d from %d, of a tree of %d\n\n", path, a.site, a.from, a.to, a.count, a.first, a.size)
	for _, r := range a.results {
		worst = max(worst, r.verdict)
		fmt.Fprintln(w, strings.TrimSpace(fmt.Sprintf("%-11s %-11s %s", r.name, r.status, r.text)))
	}
	witnessed := map[bool]string{true: "UNWITNESSED", false: fmt.Sprintf("WITNESSED %d", a.witnessed)}[a.witnessed == 0]
	fmt.Fprintf(w, "\n%s %s\n\n", [...]string{"VERIFIED", "INCOMPLETE", "UNAUTHENTICATED", "FAILED"}[worst], witnessed)
	return worst
}
