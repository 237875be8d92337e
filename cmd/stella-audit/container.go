package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Limits, in bytes. What is over them is refused unread (part 6): the tar; all of a compressed file; manifest.json and
// SHA256SUMS; notes, keys, proofs, and sealed files that are parsed; a line of runs.ndjson, and of other files.
const maxArchive, maxContent, maxManifest, maxSmall, maxRun, maxLine = 64 << 30, 256 << 30, 32 << 20, 1 << 20, 256 << 20, 1 << 20

const evidence = "evidence/sha256/"

// fixed are the files of every archive in their order (part 6). Evidence stands before the telemetry.
var fixed = strings.Fields(`manifest.json SHA256SUMS SHA256SUMS.sigstore.json README.txt keys/log.pub keys/site.pub
	ledger/envelopes.ndjson.zst ledger/data.ndjson.zst ledger/runs.ndjson.zst ledger/checkpoint.note ledger/window.json
	telemetry/logs.jsonl.zst telemetry/metrics.jsonl.zst telemetry/traces.jsonl.zst`)

// member is a file of the archive; its digest is known from the check sums on.
type member struct {
	at, size, seconds int64
	sum               string
}

// checkForm is part 0, tar, and the order of part 6: each header is made anew and compared.
func (a *audit) checkForm() {
	end := try(a.file.Stat()).Size()
	demand(end <= maxArchive, "%d bytes are over the limit", end)
	pos, next, last := int64(0), 0, ""
	for next < len(fixed) {
		var h [512]byte
		try(a.file.ReadAt(h[:], pos))
		name, _, _ := strings.Cut(string(h[:100]), "\x00")
		size, _ := strconv.ParseInt(string(h[124:135]), 8, 64)
		seconds, _ := strconv.ParseInt(string(h[136:147]), 8, 64)
		if name == fixed[next] {
			next++
		} else {
			sum, ok := strings.CutPrefix(name, evidence)
			demand(ok && isDigest(sum) && next == 11 && name > last, "block at %d: %q is not expected here", pos, name)
			last = name
		}
		a.members[name] = &member{pos + 512, size, seconds, ""}
		var form bytes.Buffer // the standard library writes the one form of part 0
		try(0, tar.NewWriter(&form).WriteHeader(&tar.Header{Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(a.members[fixed[0]].seconds, 0), Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}))
		demand(bytes.Equal(h[:], form.Bytes()), "%q: its header is not in the one accepted form", name)
		a.zeros(pos+512+size, -size&511)
		pos += 512 + size + -size&511
	}
	a.zeros(pos, 1024)
	demand(end == pos+1024, "something follows the end")
}

func (a *audit) zeros(pos, n int64) {
	b := make([]byte, n)
	try(a.file.ReadAt(b, pos))
	demand(len(bytes.Trim(b, "\x00")) == 0, "bytes from %d on must be zero", pos)
}

func (m *member) in(f io.ReaderAt) io.Reader { return io.NewSectionReader(f, m.at, m.size) }

// read gives a file whole; once it was hashed it must be the same.
func (a *audit) read(name string, limit int64) []byte {
	raw := try(io.ReadAll(io.LimitReader(a.members[name].in(a.file), limit+1)))
	demand(int64(len(raw)) <= limit, "%s has more than %d bytes", name, limit)
	sum := a.members[name].sum
	demand(sum == "" || sum == digest(raw), "%s changed while it was judged", name)
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

const timeForm = "2006-01-02T15:04:05.000000000Z" // part 0

func parseTime(s string) time.Time {
	t, err := time.Parse(timeForm, s)
	demand(err == nil && t.Format(timeForm) == s, "%.40q is no time", s)
	return t
}

// siteOf is the site of an origin (part 5).
func siteOf(origin string) string {
	m := regexp.MustCompile(`^stella/([0-9a-f]{32})/[1-9][0-9]{0,15}$`).FindStringSubmatch(origin)
	demand(m != nil, "%.100q is no origin", origin)
	return m[1]
}

// checkManifest is part 6, manifest.json.
func (a *audit) checkManifest() {
	m := decode(a.read("manifest.json", maxManifest), "\n")
	a.manifest = m
	demand(text(m, "schema") == "stella.archive/1", "the schema is %.100q", text(m, "schema"))
	a.site, a.from, a.to = siteOf(text(m, "origin")), text(m, "window.from"), text(m, "window.to")
	a.first, a.count, a.size = number(m, "ledger.firstSeq"), number(m, "ledger.count"), number(m, "ledger.treeSize")
	demand(a.siteID == "" || a.siteID == a.site, "it is of site %s", a.site)
	from, to := parseTime(a.from), parseTime(a.to)
	demand(from.Before(to) && from.Year() >= 1970 && to.Year() <= 2200 && to.Unix() == a.members["manifest.json"].seconds, "the window is none, or the files have another time than its end")
	demand(a.first >= 0 && a.count >= 0 && a.count <= 8<<20 && a.size < 1<<53 && a.first < a.size-a.count, "ledger is no window of a tree, or over the limit")
	_, said := m["withheld"].([]any)
	demand(said && (m["redactionPolicySha256"] == nil || isDigest(text(m, "redactionPolicySha256"))), "withheld or redactionPolicySha256 are malformed")
	for i, w := range list(m, "withheld") {
		key := what(text(w, "what"), number(w, "seq"), text(w, "sha256"))
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
	a.met[what(kind, seq, sum)] = true
	return a.reasons[what(kind, seq, sum)]
}

// checkWithheld is part 7, INCOMPLETE.
func (a *audit) checkWithheld() {
	for key := range a.reasons {
		demand(a.met[key], "declared as withheld, and no entry lacks it: %.200q", key)
	}
	stopIf(len(a.reasons) != a.withheld, "missing", incomplete, "%d things are withheld, and %d were expected", len(a.reasons), a.withheld)
}

// lines gives the lines of a compressed file without line feeds. At the end it compares records, size and digest
// with the manifest, at each reading: what is judged later is what was checked. A finding in a line gets its place.
func (a *audit) lines(name string, limit int) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		n, size, sum := int64(0), int64(0), sha256.New()
		defer func() {
			if p := recover(); p != nil {
				f := p.(finding)
				f.text = fmt.Sprintf("%s:%d: %s", name, n, f.text)
				panic(f)
			}
		}()
		files := list(a.manifest, "files")
		f := files[slices.IndexFunc(files, func(f any) bool { return text(f, "path") == name })]
		dec := try(zstd.NewReader(a.members[name].in(a.file), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20), zstd.WithDecoderMaxMemory(maxContent)))
		defer dec.Close()
		in := bufio.NewScanner(io.TeeReader(io.LimitReader(dec, number(f, "uncompressedBytes")+1), sum))
		in.Buffer(nil, limit+1)
		for in.Scan() {
			n, size = n+1, size+int64(len(in.Bytes()))+1
			if !yield(in.Bytes()) {
				return
			}
		}
		try(0, in.Err())
		demand(n == number(f, "records") && size == number(f, "uncompressedBytes") && fmt.Sprintf("%x", sum.Sum(nil)) == text(f, "uncompressedSha256"),
			"records, size or digest are not those of the manifest, or a line does not end with a line feed alone")
	}
}

// checkContent is part 6, compressed files. Whether each is one frame with nothing behind it is left to "export verify".
func (a *audit) checkContent() {
	for _, name := range append(fixed[6:9:9], fixed[11:]...) {
		for range a.lines(name, maxRun) {
		}
	}
}

// decode reads a JSON object in the one form of part 0 (RFC 8785), with what must stand behind it: what was read is written
// anew, and must be the same bytes. That finds white space, other orders and escapes, and names that are there twice.
func decode(raw []byte, end string) (o object) {
	try(0, json.Unmarshal(raw, &o))
	demand(string(encode(o))+end == string(raw), "the JSON is not in its canonical form")
	return o
}

// unescape makes RFC 8785 of what encoding/json writes.
var unescape = strings.NewReplacer(`\\`, `\\`, `\u2028`, "\u2028", `\u2029`, "\u2029", `\u003c`, "<", `\u003e`, ">", `\u0026`, "&")

func encode(v any) []byte { return []byte(unescape.Replace(string(try(json.Marshal(v))))) }

type object = map[string]any

// list finds what is at a path of names, as in "trust.policy", going through the items of lists; "*" stands for all names.
func list(v any, path string) []any {
	found := []any{v}
	for name := range strings.SplitSeq(path, ".") {
		var next []any
		for _, v := range found {
			o, _ := v.(object)
			if name == "*" {
				next = slices.AppendSeq(next, maps.Values(o))
			} else if items, ok := o[name].([]any); ok {
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

func text(v any, path string) string                 { return the[string](v, path) }
func parse(raw []byte) (v any)                       { try(0, json.Unmarshal(raw, &v)); return v }
func what(kind string, seq int64, sum string) string { return fmt.Sprint(kind, " of ", seq, " ", sum) }
func digest(raw []byte) string                       { return fmt.Sprintf("%x", sha256.Sum256(raw)) }

var isDigest = regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString

func unbase64(s string) []byte {
	raw, err := base64.StdEncoding.DecodeString(s)
	demand(err == nil && base64.StdEncoding.EncodeToString(raw) == s, "%.80q is not base64", s)
	return raw
}
