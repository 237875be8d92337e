// Command stella-audit judges archives of evidence (stella.archive/1) a second time. It is written from docs/format.md, shares no code with stella, and is small enough to be read before it is believed. The comment of each check names the
// part of that document that it follows. It holds in memory the manifest, a hash and a name for each run of all archives, and one line, of which it parses one entry at a time: below 100 MB for ordinary archives, below 3 GB for the largest.
package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"github.com/klauspost/compress/zstd"
	"io"
	"iter"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const usage = `usage: stella-audit --log-key FILE --site-key FILE [flags] ARCHIVE...
Judges archives without stella and without a site, by keys and notes from outside. Several archives of one site, in the order of their
windows, must also meet: nothing was left out between them. --previous is about the first of them.
  stella-audit --log-key log.pub --site-key site.pub --previous october.note --cosigned november.note --witness w.pub --min 1 november.tar
Exit 0 VERIFIED, 5 UNAUTHENTICATED, 8 INCOMPLETE, 7 FAILED, 1 not judged. Nobody can tell whether the site recorded all it did.`

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is main; it returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	f, opt, worst, withheld := flag.NewFlagSet("stella-audit", flag.ContinueOnError), audit{worst: unjudged}, verified, ""
	f.SetOutput(stderr)
	f.Usage = func() { fmt.Fprintln(stderr, usage); f.PrintDefaults() }
	file := func(name, text string, use func(raw []byte)) {
		f.Func(name, text, func(arg string) error {
			bad := outcome(func() { use(try(io.ReadAll(io.LimitReader(try(os.Open(arg)), maxSmall)))) }) // what is larger is cut, and then malformed
			demand(bad.status == "ok", "--%s %s: %s", name, arg, bad.text)
			return nil
		})
	}
	file("log-key", "`FILE` with the public key of the ledger, PEM", func(raw []byte) { opt.logKey = parseKey(raw, true) })
	file("site-key", "`FILE` with the public key of the site, PEM", func(raw []byte) { opt.siteKey = parseKey(raw, false) })
	file("previous", "`FILE` with a signed note that you hold of an earlier tree", func(raw []byte) { opt.previous = parseNote(raw) })
	file("consistency", "`FILE` of \"stella ledger prove --consistency\": a proof from that tree", func(raw []byte) { opt.proofs = append(opt.proofs, parseProof(raw)) })
	file("cosigned", "`FILE` with a note of a tree that holds the window, signed by witnesses", func(raw []byte) { opt.cosigned = parseNote(raw) })
	file("cosigned-consistency", "`FILE` with a proof between that tree and the archive's; one for each archive", func(raw []byte) { opt.cosignedProof = append(opt.cosignedProof, parseProof(raw)) })
	f.Func("witness", "`FILE` with the public key of a witness, or the key itself; may be given again", func(arg string) error { opt.witnesses = append(opt.witnesses, parseWitness(arg)); return nil })
	f.IntVar(&opt.min, "min", 0, "`N` of these witnesses must have signed")
	f.StringVar(&withheld, "withheld", "0", "`N` things that you know to be withheld, in each archive; N,N,... has one number for each")
	f.Func("expect-root", "`DIGEST` of the first root.toml, sha256:HEX, from who made it; without it, that is the site's own word", func(arg string) error {
		opt.root = strings.TrimPrefix(arg, "sha256:")
		demand(isDigest(opt.root), "--expect-root takes sha256: and 64 hex digits in lower case")
		return nil
	})
	f.Func("site-id", "`ID` of the site that it must be of", func(arg string) error { opt.siteID = arg; demand(arg != "", "--site-id is empty"); return nil })
	fault := outcome(func() {
		err := f.Parse(args)
		stopIf(err == flag.ErrHelp, "ok", verified, "")
		demand(err == nil && f.NArg() > 0 && !strings.Contains("\x00"+strings.Join(f.Args(), "\x00"), "\x00-"), "nothing to judge, or a flag behind it: flags stand before the archives; see -h")
		demand(0 <= opt.min && opt.min <= len(opt.witnesses), "%d witnesses are demanded, and %d are named", opt.min, len(opt.witnesses))
		known := strings.Split(withheld, ",")
		demand(regexp.MustCompile(`^[0-9]{1,9}(,[0-9]{1,9})*$`).MatchString(withheld) && (len(known) == 1 || len(known) == f.NArg()), "--withheld %s is neither a number, nor one for each of %d archives", withheld, f.NArg())
		demand((opt.proofs == nil || opt.previous.text != "") && (opt.cosignedProof == nil || opt.cosigned.text != ""), "--consistency goes with --previous, --cosigned-consistency with --cosigned")
		demand(!slices.ContainsFunc(opt.witnesses, func(w named) bool { return bytes.HasSuffix(opt.logKey, w.raw) }), "the log cannot be its own witness")
		for i, path := range f.Args() {
			a := opt
			a.withheld, _ = strconv.Atoi(known[i%len(known)])
			if unread := outcome(func() { a.judge(path, stdout) }); unread.status != "ok" { // the others can be judged nevertheless
				fmt.Fprintf(stderr, "stella-audit: %s: %s\n", path, unread.text)
			}
			a.before, a.members, a.manifest, a.window, a.reasons = nil, nil, nil, nil, nil // the next is as large
			opt.before, opt.open, worst = &a, a.open, max(worst, a.worst)
		}
	})
	if fault.status != "ok" {
		fmt.Fprintln(stderr, "stella-audit:", fault.text)
		return 1
	}
	return [...]int{0, 8, 1, 5, 7}[worst]
}

const verified, incomplete, unjudged, unauthenticated, failed = 0, 1, 2, 3, 4 // the verdicts of part 7, the better first

// A finding is the outcome of a check, with the verdict that the archive has at best. All but ok end the check by a panic, which outcome catches: so checks read as lists of what they demand.
type finding struct {
	status, text string
	verdict      int
}

func stopIf(stop bool, status string, verdict int, why string, args ...any) {
	if stop {
		panic(finding{status, fmt.Sprintf(why, args...), verdict})
	}
}

func demand(ok bool, why string, args ...any) { stopIf(!ok, "failed", failed, why, args...) }
func try[T any](v T, err error) T             { demand(err == nil, "%.300v", err); return v }

func outcome(f func()) (found finding) {
	defer func() { found = cmp.Or(recover(), any(finding{status: "ok"})).(finding) }()
	f()
	return
}

// audit is one archive under judgement. What comes first the auditor knows from outside.
type audit struct {
	logKey, siteKey                         []byte
	previous, cosigned, note                note  // without text if they were not given; that of the archive
	proofs, cosignedProof, epochs           []any // epochs are data of epoch.begun
	witnesses                               []named
	min, withheld, worst                    int    // worst is the verdict so far
	before                                  *audit // of the archive before: what came before this one, that tells
	file                                    *os.File
	members                                 map[string]*member
	manifest, window, genesis, known        any                // genesis is the data of entry 0; known the trust files that an entry has named last, empty where it is withheld
	open                                    []note             // checkpoints of archives before that cover more than any of them has shown so far
	first, count, size, since, epoch        int64              // of the manifest's ledger: the window's entries, and the tree; since is where the first of the archives begins that meet up to here, epoch the last that they begin
	siteID, root, from, to, site, witnessed string             // root is the SHA-256 of the first root.toml; witnessed what the verdict says of witnesses
	logIn, siteIn                           []byte             // the keys inside, as SPKI
	roots                                   map[int64][]byte   // of the tree, at sizes that somebody asks for
	runs, inForce                           map[string][]byte  // run → hash over its envelopes from since on; trust files, root policy revocations, and the last extension
	reasons                                 map[string]string  // of what is declared as withheld
	met, unknown, extended, untold          map[string]bool    // what of that some entry lacks; types of entries that are not known here; extensions that were in force; runs of the window without a line so far
	firstRoot, lacks, judged, mustName      string             // the digest of the first root in force; what was not judged of trust files; the last change; what the next verdict must name as in force, "" where nothing says so
	hidden                                  bool               // other trust files may have been in force since
	found                                   map[string]finding // by check
}

// judge makes the checks in the order of part 7, each unless one that it needs was not passed.
func (a *audit) judge(path string, stdout io.Writer) {
	a.members, a.roots, a.runs, a.reasons, a.found, a.met, a.unknown, a.untold = map[string]*member{}, map[int64][]byte{}, map[string][]byte{}, map[string]string{}, map[string]finding{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
	demand(try(os.Stat(path)).Mode().IsRegular(), "not a file")
	a.file = try(os.Open(path))
	defer a.file.Close()
	head, rows := string(try(io.ReadAll(io.NewSectionReader(a.file, 0, 18)))), ""
	demand(head != "age-encryption.org" && !regexp.MustCompile(`\.[0-9]{3}$`).MatchString(path), "it is encrypted, or a part: cat joins all parts, in their order, and age -d -i KEY FILE makes the archive of what is encrypted")
	a.worst, a.witnessed = verified, "UNWITNESSED"
	for _, c := range []struct {
		name, needs string
		make        func()
	}{
		{"form", "", a.checkForm}, {"signature", "form", a.checkSignature}, {"sums", "form", a.checkSums}, {"manifest", "sums", a.checkManifest}, {"content", "manifest", a.checkContent},
		{"window", "manifest", a.checkWindow}, {"checkpoint", "manifest", a.checkCheckpoint}, {"keys", "signature checkpoint", a.checkKeys}, {"envelopes", "content window", a.checkEnvelopes},
		{"root", "envelopes checkpoint", a.checkRoot}, {"edges", "envelopes", a.checkEdges}, {"data", "envelopes", a.checkData}, {"previous", "root", a.checkPrevious},
		{"witnesses", "root", a.checkWitnesses}, {"genesis", "data keys", a.checkGenesis}, {"types", "data", a.checkTypes}, {"runs", "types", a.checkRuns}, {"evidence", "types", a.checkEvidence},
		{"trust", "evidence", a.checkTrust}, {"verdicts", "evidence", a.checkVerdicts}, {"logs", "types", a.checkLogs}, {"withheld", "runs evidence logs", a.checkWithheld}, {"meets", "root", a.checkMeets},
		{"derived", "", func() { stopIf(true, "not judged", verified, "what runs.ndjson sums up, metrics, traces") }},
	} {
		found := outcome(func() {
			for need := range strings.FieldsSeq(c.needs) { // keys of somebody else keep nothing from being judged
				stopIf(a.found[need].verdict == failed || a.found[need].status == "not judged", "not judged", verified, "it needs %s", need)
			}
			c.make()
		})
		a.found[c.name], a.worst = found, max(a.worst, found.verdict)
		rows += strings.TrimSpace(fmt.Sprintf("%-11s %-11s %s", c.name, found.status, found.text)) + "\n"
	}
	fmt.Fprintf(stdout, "archive  %q\nsite     %s\nwindow   %s to %s\nentries  %d from %d, of a tree of %d\n\n%s\n%s %s\n\n", path, a.site, a.from, a.to, a.count, a.first, a.size,
		rows, [...]string{"VERIFIED", "INCOMPLETE", "NOT JUDGED", "UNAUTHENTICATED", "FAILED"}[a.worst], a.witnessed)
}

// Limits, in bytes. What is over them is refused unread (part 6): the tar; all of a compressed file; manifest.json and SHA256SUMS; notes, keys,
// proofs, and sealed files that are parsed; signatures; a line of runs.ndjson, and of other files.
const maxArchive, maxContent, maxManifest, maxSmall, maxSignature, maxRun, maxLine, evidence, timeForm = 64 << 30, 256 << 30, 32 << 20, 1 << 20, 64 << 10, 256 << 20, 1 << 20, "evidence/sha256/", "2006-01-02T15:04:05.000000000Z"

// fixed are the files of every archive in their order (part 6). Evidence stands before the telemetry.
var fixed = strings.Fields(`manifest.json SHA256SUMS SHA256SUMS.sigstore.json README.txt keys/log.pub keys/site.pub ledger/envelopes.ndjson.zst
	ledger/data.ndjson.zst ledger/runs.ndjson.zst ledger/checkpoint.note ledger/window.json telemetry/logs.jsonl.zst telemetry/metrics.jsonl.zst telemetry/traces.jsonl.zst`)

// member is a file of the archive; its digest is known from the check sums on.
type member struct {
	at, size, seconds int64
	sum               string
}

// checkForm is part 0, tar, and the order of part 6: each header is made anew and compared.
func (a *audit) checkForm() {
	end := try(a.file.Stat()).Size()
	demand(end <= maxArchive, "%d bytes are over the limit", end)
	pos, next, last, name := int64(0), 0, "", ""
	at := func(pos, n int64) []byte {
		demand(pos+n <= end, "it is cut short, in or behind %q, and ends at byte %d: copy it again", name, end)
		return try(io.ReadAll(io.NewSectionReader(a.file, pos, n)))
	}
	zeros := func(pos, n int64) {
		demand(string(at(pos, n)) == string(make([]byte, n)), "%q: not zeros from byte %d on, behind it", name, pos)
	}
	for next < len(fixed) {
		is := try(tar.NewReader(bytes.NewReader(at(pos, 512))).Next())
		name = is.Name
		sum, ok := strings.CutPrefix(name, evidence)
		demand(name == fixed[next] || ok && isDigest(sum) && next == 11 && name > last, "block at %d: %q is not expected here", pos, name)
		last, next = map[bool]string{true: name}[ok], next+map[bool]int{false: 1}[ok]
		a.members[name] = &member{pos + 512, is.Size, is.ModTime.Unix(), ""}
		var form bytes.Buffer // the standard library writes the one form of part 0
		try(0, tar.NewWriter(&form).WriteHeader(&tar.Header{Name: name, Size: is.Size, Mode: 0o644, ModTime: time.Unix(a.members[fixed[0]].seconds, 0), Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}))
		demand(bytes.Equal(at(pos, 512), form.Bytes()), "%q: its header is not in the one accepted form", name)
		zeros(pos+512+is.Size, -is.Size&511)
		pos += 512 + is.Size + -is.Size&511
	}
	zeros(pos, 1024)
	demand(end == pos+1024, "something follows the end")
}

func (m *member) in(f io.ReaderAt) io.Reader { return io.NewSectionReader(f, m.at, m.size) }

// read gives a file whole; once it was hashed it must be the same.
func (a *audit) read(name string, limit int64) []byte {
	raw := try(io.ReadAll(io.LimitReader(a.members[name].in(a.file), limit+1)))
	demand(int64(len(raw)) <= limit, "%s has more than %d bytes", name, limit)
	demand(a.members[name].sum == "" || a.members[name].sum == digest(raw), "%s changed while it was judged", name)
	return raw
}

// checkSums is part 6, SHA256SUMS: made anew from all files, and compared.
func (a *audit) checkSums() {
	rest := string(a.read("SHA256SUMS", maxManifest))
	for _, name := range slices.Sorted(maps.Keys(a.members)) {
		h := sha256.New()
		try(io.Copy(h, a.members[name].in(a.file)))
		a.members[name].sum = fmt.Sprintf("%x", h.Sum(nil))
		if !strings.HasPrefix(name, "SHA256SUMS") {
			tail, ok := strings.CutPrefix(rest, a.members[name].sum+"  "+name+"\n")
			demand(ok, "%s has the digest %s, which SHA256SUMS does not say in its place", name, a.members[name].sum)
			rest = tail
		}
	}
	demand(rest == "", "SHA256SUMS names what is not there: %.200q", rest)
}

// parseWitness reads NAME+ID+BASE64, or a file with that.
func parseWitness(arg string) named {
	raw, _ := os.ReadFile(arg)
	name, rest, _ := strings.Cut(strings.TrimSpace(cmp.Or(string(raw), arg)), "+")
	id, b64, _ := strings.Cut(rest, "+")
	key := unbase64(b64)
	demand(len(key) == 1+32 && key[0] == 4 && name != "" && id == keyID(name, string(key)), "%.100q is neither the public key of a witness nor a file with it", arg)
	return named{name, id, key[1:]}
}

// siteOf is the site of an origin (part 5).
func siteOf(origin string) string {
	m := regexp.MustCompile(`^stella/([0-9a-f]{32})/[1-9][0-9]{0,15}$`).FindStringSubmatch(origin)
	demand(m != nil, "%.100q is no origin", origin)
	return m[1]
}

// epochOf is the number behind the site of an origin.
func epochOf(origin string) int64 { return try(strconv.ParseInt(origin[len("stella/")+32+1:], 10, 64)) }

// checkManifest is part 6, manifest.json.
func (a *audit) checkManifest() {
	m := decode(a.read("manifest.json", maxManifest), maxManifest, "\n")
	a.manifest = m
	demand(text(m, "schema") == "stella.archive/1", "the schema is %.100q", text(m, "schema"))
	a.site, a.from, a.to = siteOf(text(m, "origin")), text(m, "window.from"), text(m, "window.to")
	a.first, a.count, a.size = number(m, "ledger.firstSeq"), number(m, "ledger.count"), number(m, "ledger.treeSize")
	demand(a.siteID == "" || a.siteID == a.site, "it is of site %s", a.site)
	from, to := parseTime(a.from), parseTime(a.to)
	demand(from.Before(to) && from.Year() >= 1970 && to.Year() <= 2200 && to.Unix() == a.members["manifest.json"].seconds, "the window is none, or the files have another time than its end")
	demand(a.first >= 0 && a.count >= 0 && a.count <= 8<<20 && a.size < 1<<53 && a.first < a.size-a.count, "ledger is no window of a tree, or over the limit")
	_, said := m["withheld"].([]any)
	demand(said && has(m, "dropped files ledger origin redactionPolicySha256 schema stella window withheld") && isDigest(cmp.Or(text(m, "redactionPolicySha256"), digest(nil))), "members are missing, malformed, or none that a manifest has")
	for i, w := range list(m, "withheld") {
		key := fmt.Sprint(text(w, "what"), " of ", number(w, "seq"), " ", text(w, "sha256"))
		a.reasons[key] = text(w, "reason")
		demand(regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`).MatchString(a.reasons[key]) && len(a.reasons) == i+1, "withheld: item %d is malformed, or there twice", i)
	}
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(a.members)), func(n string) bool { return n == fixed[0] || strings.HasPrefix(n, fixed[1]) })
	files := list(m, "files")
	demand(len(names) == len(files) && len(names) <= 100_011, "it lists %d files, and %d are there", len(files), len(names))
	for i, name := range names {
		f, is := files[i], a.members[name]
		demand(text(f, "path") == name && number(f, "bytes") == is.size && text(f, "sha256") == is.sum, "it does not describe %s, with %d bytes and the digest %s", name, is.size, is.sum)
		demand(!strings.HasPrefix(name, evidence) || name == evidence+is.sum, "%s is not named by its digest", name)
	}
}

// withholds gives the reason for which something is declared as withheld, "" if it is not.
func (a *audit) withholds(kind string, seq int64, sum string) string {
	key := fmt.Sprint(kind, " of ", seq, " ", sum)
	a.met[key] = true
	return a.reasons[key]
}

// checkWithheld is part 7, INCOMPLETE.
func (a *audit) checkWithheld() {
	for key := range a.reasons {
		demand(a.met[key], "declared as withheld, and no entry lacks it: %.200q", key)
	}
	stopIf(len(a.reasons) != a.withheld, "missing", incomplete, "%d things are withheld, and %d were expected", len(a.reasons), a.withheld)
}

// lines gives the lines of a compressed file without line feeds. At the end it compares records, size and digest with the manifest, at each reading: what is judged later is what was checked. A finding in a line gets its place.
func (a *audit) lines(name string, limit int) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		n, size, sum := int64(0), int64(0), sha256.New()
		found := outcome(func() {
			files := list(a.manifest, "files")
			f := files[slices.IndexFunc(files, func(f any) bool { return text(f, "path") == name })]
			dec := try(zstd.NewReader(a.members[name].in(a.file), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20), zstd.WithDecoderMaxMemory(maxContent)))
			defer dec.Close()
			in := bufio.NewScanner(io.TeeReader(io.LimitReader(dec, number(f, "uncompressedBytes")+1), sum))
			in.Buffer(nil, limit+1)
			in.Split(func(raw []byte, end bool) (int, []byte, error) { // bufio.ScanLines would take carriage returns off, and what no line feed ends for a line
				i := bytes.IndexByte(raw, '\n')
				demand(i != 0 && (i > 0 || !end || len(raw) == 0), "a line is empty, or no line feed ends it")
				return i + 1, append([]byte(nil), raw[:max(i, 0)]...), nil
			})
			for in.Scan() {
				n, size = n+1, size+int64(len(in.Bytes()))+1
				if !yield(in.Bytes()) {
					return
				}
			}
			demand(try(0, in.Err()) == 0 && n == number(f, "records") && size == number(f, "uncompressedBytes") && fmt.Sprintf("%x", sum.Sum(nil)) == text(f, "uncompressedSha256"), "not the records, size or digest of the manifest")
		})
		stopIf(found.status != "ok", found.status, found.verdict, "%s:%d: %s", name, n, found.text)
	}
}

// checkContent is part 6, compressed files. Whether each is one frame with nothing behind it is left to "export verify".
func (a *audit) checkContent() {
	for _, name := range append(fixed[6:9:9], fixed[11:]...) {
		a.lines(name, maxRun)(func([]byte) bool { return true })
	}
}

// decode reads a JSON object in its one form, with what must stand behind it.
func decode(raw []byte, most int, end string) object { return parse[object](canonical(raw, most, end)) }

// canonical demands a JSON object in the one form of part 0 (RFC 8785), before anything is made of it: no white space, no other orders or escapes,
// no name twice, no depth over 64. It takes no memory, and time that grows with the length alone.
func canonical(raw []byte, most int, end string) []byte {
	demand(len(raw) <= most && json.Valid(raw) && bytes.HasSuffix(raw, []byte("}"+end)), "it is no JSON, does not end as it must, or has more than %d bytes", most)
	names, depth, n, escaped := [66]string{}, 0, 0, false // names are the last ones of the objects that are open
	for at := 0; at < len(raw)-len(end); at += n {
		if c := string(raw[at]); strings.Contains("{[]},:", c) {
			n, depth = 1, depth+strings.Count("{[", c)-strings.Count("]}", c)
			demand(depth <= 64, "the JSON is nested more than 64 deep")
			names[depth+1] = ""
			continue
		}
		if n = bytes.IndexAny(raw[at:], ",}]"); raw[at] == '"' { // a text ends with the next one that is not escaped
			n = 2 + bytes.IndexFunc(raw[at+1:], func(c rune) bool { was := escaped; escaped = c == '\\' && !was; return c == '"' && !was })
		}
		one := raw[at : at+n]
		if one[0] != '"' || bytes.ContainsAny(one, "\\\uFFFD") { // all other texts stand for themselves
			v := parse[any](one)
			f, _ := v.(float64)
			demand(n <= maxSmall && bytes.Equal(encode(v), one) && max(f, -f) < 1<<53 && string(one) != "-0", "the JSON is not in its canonical form: %.80q", one)
		}
		if raw[at+n] == ':' {
			name := "=" + byUTF16.Replace(parse[string](one))
			demand(names[depth] < name, "the JSON is not in its canonical form: %.80q is there twice, or not in its place", one)
			names[depth] = name
		}
	}
	return raw
}

// texts are what is text in TOML, or a comment; parts go up to a bracket, comma, = or line feed; parsed and signatures remember some files by their digest.
// unescape makes strings of RFC 8785 of what encoding/json writes, and byUTF16 the order of its names: UTF-16 code units from U+E000 on (UTF-8: EE, EF) come behind the two of a character beyond U+FFFF (F0 to F4).
var unescape = strings.NewReplacer(`\\`, `\\`, `\u2028`, "\u2028", `\u2029`, "\u2029", `\u003c`, "<", `\u003e`, ">", `\u0026`, "&")
var padded = base64.StdEncoding
var isDigest = regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString
var byUTF16 = strings.NewReplacer("\xee", "\xfe", "\xef", "\xff")
var texts = regexp.MustCompile(`"""(?s:\\.|[^\\])*?"{3,}|'''(?s:.*?)'{3,}|"(\\.|[^"\\\n])*"|'[^'\n]*'|#[^\n]*`)
var parts = regexp.MustCompile(`[^\[\]{},=\n]*[\[\]{},=\n]`)
var parsed, signatures = map[string]any{}, map[string][]string{}

type object = map[string]any

// encode writes JSON in that form, but for numbers and names that stella has none of.
func encode(v any) []byte { return []byte(unescape.Replace(string(try(json.Marshal(v))))) }

// list finds what is at a path of names, as in "trust.policy", going through the items of lists.
func list(v any, path string) []any {
	found := []any{v}
	for name := range strings.SplitSeq(path, ".") {
		var next []any
		for _, v := range found {
			o, _ := v.(object)
			if items, ok := o[name].([]any); ok {
				next = append(next, items...)
			} else if o[name] != nil {
				next = append(next, o[name])
			}
		}
		found = next
	}
	return found
}

// the gives what stands alone at a path, if it is of the type.
func the[T any](v any, path string) (t T) {
	if found := list(v, path); len(found) == 1 {
		t, _ = found[0].(T)
	}
	return t
}

func number(v any, path string) int64 {
	n := the[float64](v, path)
	demand(n == float64(int64(n)) && max(n, -n) < 1<<53, "%s is %v, which is no integer below 2^53", path, n)
	return int64(n)
}

func text(v any, path string) string { return the[string](v, path) }
func parse[T any](raw []byte) (v T)  { try(0, json.Unmarshal(raw, &v)); return v }
func parseProof(raw []byte) any      { hashes(list(parse[any](raw), "proof")); return parse[any](raw) }
func digest(raw []byte) string       { return fmt.Sprintf("%x", sha256.Sum256(raw)) }
func unbase64(s string) []byte       { return inForm(s, padded.EncodeToString)(padded.DecodeString(s)) }
func parseTime(s string) time.Time   { return inForm(s, inTimeForm)(time.Parse(timeForm, s)) }
func inTimeForm(t time.Time) string  { return t.Format(timeForm) }

// has says whether an object has no other members than these. Which of them must be there is for others to say.
func has[T any](o map[string]T, members string) bool {
	return !slices.ContainsFunc(slices.Collect(maps.Keys(o)), func(name string) bool { return !slices.Contains(strings.Fields(members), name) })
}

// inForm demands that what was read of s is written as s.
func inForm[T any](s string, write func(T) string) func(T, error) T {
	return func(v T, err error) T { demand(err == nil && write(v) == s, "%.80q is malformed", s); return v }
}
