package manifests

import (
	"fmt"
	"strings"
	"time"
)

// Limits of a bundle's container that its manifest must keep.
const (
	maxStored  = 1<<33 - 1 // bytes of a stored blob: USTAR writes a size in 11 octal digits
	maxCreated = 1<<33 - 1 // seconds, likewise: created becomes the time of every entry
)

// ParseBundle reads a bundle manifest. Its error is [Faults].
func ParseBundle(file string, raw []byte) (*Bundle, error) { return parseBundle(file, raw, false) }

// ParseSource reads the stella.toml of a source folder: a manifest without
// [[file]] and content_digest, which packing adds. What it says of files is
// checked when the packed manifest is parsed. Its error is [Faults].
func ParseSource(file string, raw []byte) (*Bundle, error) { return parseBundle(file, raw, true) }

func parseBundle(file string, raw []byte, source bool) (*Bundle, error) {
	r := &report{file: file}
	t := open(r, raw, BundleSchema, MaxBytes)
	if t == nil {
		return nil, r.err()
	}
	b := bundleHead(t)
	sections := bundleSections(t, b)
	if source {
		t.mark("file", "content_digest")
		for _, key := range []string{"file", "content_digest"} {
			if t.has(key) {
				t.fault(key, "does not stand in a source folder's manifest", "packing writes it; take it out")
			}
		}
	} else {
		t.need("content_digest")
		b.ContentDigest = t.text("content_digest", isHash())
		bundleFiles(t, b, sections)
	}
	t.done()
	if err := r.err(); err != nil {
		return nil, err
	}
	return b, nil
}

func bundleHead(t *table) *Bundle {
	t.need("kind", "publisher", "name", "version", "sequence", "created")
	b := &Bundle{
		Kind:      Kind(t.text("kind", isKind())),
		Publisher: t.text("publisher", isName()),
		Name:      t.text("name", isName()),
		Version:   t.text("version", isVersion()),
		Sequence:  t.integer("sequence", 0, 1, maxInt),
		Created:   t.instant("created"),
		NotBefore: t.instant("not_before"),
		Expires:   t.instant("expires"),
		MinStella: t.text("min_stella", isVersion()),
		Audience:  t.texts("audience", isSiteID()),
	}
	if b.Created.Unix() > maxCreated {
		t.fault("created", "is beyond what the container can carry", "want a time before "+
			time.Unix(maxCreated, 0).UTC().Format(time.DateOnly))
	}
	t.after("expires", b.Expires, "created", b.Created)
	t.after("expires", b.Expires, "not_before", b.NotBefore)
	if (b.Kind == KindTrust || b.Kind == KindSecrets) && len(b.Audience) == 0 {
		t.fault("audience", "is missing", fmt.Sprintf("a bundle of kind %s names the sites or fleets it is for", b.Kind))
	}
	return b
}

func kinds() []string {
	return []string{string(KindPlugin), string(KindDAG), string(KindData), string(KindTrust), string(KindSecrets)}
}

func isKind() rule {
	return rule{func(s string) bool {
		for _, k := range kinds() {
			if s == k {
				return true
			}
		}
		return false
	}, oneOf(kinds())}
}

// A mention is a key that names a file of the bundle.
type mention struct {
	t    *table
	key  string
	path string
	exec bool // it must be executable
}

// bundleSections reads the section of the bundle's kind and refuses the others.
// It returns the files that the section names.
func bundleSections(t *table, b *Bundle) []mention {
	for _, k := range kinds() {
		switch {
		case b.Kind == "": // wrong or missing: any section could be the right one
		case string(b.Kind) == k:
			t.need(k)
		case t.has(k):
			t.fault(k, "does not belong in a bundle of kind "+string(b.Kind), "")
		}
	}
	var named []mention
	path := func(s *table, key string) string {
		p := s.file(key)
		named = append(named, mention{t: s, key: key, path: p})
		return p
	}
	if s := t.sub("plugin"); s != nil {
		b.Plugin, named = plugin(s)
	}
	if s := t.sub("dag"); s != nil {
		s.need("spec")
		b.DAG = &DAGFile{Spec: path(s, "spec")}
		s.done()
	}
	if s := t.sub("data"); s != nil {
		s.need("media_type")
		b.Data = &Data{MediaType: s.text("media_type", rule{validMediaType, "type/subtype, such as application/json"})}
		s.done()
	}
	if s := t.sub("trust"); s != nil {
		b.Trust = &TrustFiles{Root: path(s, "root"), Policy: path(s, "policy"), Revocations: path(s, "revocations")}
		s.done()
		if len(s.values) == 0 {
			t.fault("trust", "names no file", "want root, policy or revocations")
		}
		if p := b.Trust.Policy; p != "" && p == b.Trust.Root {
			s.fault("policy", "is the same file as root", "")
		}
		if p := b.Trust.Revocations; p != "" && (p == b.Trust.Root || p == b.Trust.Policy) {
			s.fault("revocations", "is the same file as another", "")
		}
	}
	if s := t.sub("secrets"); s != nil {
		s.need("file")
		b.Secrets = &SecretsFile{File: path(s, "file")}
		s.done()
	}
	return named
}

// validMediaType checks type/subtype by the restricted names of RFC 6838
// section 4.2.
func validMediaType(s string) bool {
	kind, sub, ok := strings.Cut(s, "/")
	return ok && restrictedName(kind) && restrictedName(sub)
}

func restrictedName(s string) bool {
	if s == "" || len(s) > 127 || !(isBareChar(s[0]) && s[0] != '_' && s[0] != '-') {
		return false
	}
	return only(s, func(c byte) bool { return isBareChar(c) || strings.IndexByte("!#$&^.+", c) >= 0 })
}

// bundleFiles reads the list of files and checks it against the sections.
func bundleFiles(t *table, b *Bundle, named []mention) {
	t.need("file")
	before := len(t.faults)
	rows := t.list("file")
	for _, row := range rows {
		b.Files = append(b.Files, readFile(row))
	}
	if want := ContentDigest(b.Files); len(t.faults) == before && b.ContentDigest != "" && b.ContentDigest != want {
		t.fault("content_digest", "is not the digest of the files listed here", "it should be "+want)
	}
	if t.has("file") && len(rows) == 0 {
		t.fault("file", "lists no file", "")
	}
	sameContent(rows, b.Files)
	files := onePath(rows, b.Files)
	for _, m := range named {
		checkMention(m, files)
	}
}

// onePath reports paths that a folder cannot hold side by side, also one that
// does not tell A from a. It returns the files by their folded paths.
func onePath(rows []*table, files []File) map[string]*File {
	byPath := map[string]*File{}
	lines := map[string]int{}
	for i, row := range rows {
		f := &files[i]
		if f.Path == "" {
			continue
		}
		fold := strings.ToLower(f.Path)
		if line, ok := lines[fold]; ok {
			row.broken(RuleCollision, "path", f.Path+" is listed twice, paths differing only in case included", lineHint(line))
			continue
		}
		byPath[fold], lines[fold] = f, row.node.kids["path"].line
	}
	for i, row := range rows {
		dir := strings.ToLower(files[i].Path)
		for strings.Contains(dir, "/") {
			dir = dir[:strings.LastIndexByte(dir, '/')]
			if line, ok := lines[dir]; ok {
				row.fault("path", fmt.Sprintf("lies below %s, which line %d lists as a file", dir, line), "")
			}
		}
	}
	return byPath
}

// sameContent reports files of one content that are stored in two forms: a
// container holds each blob once.
func sameContent(rows []*table, files []File) {
	first := map[string]*File{}
	for i, row := range rows {
		f := &files[i]
		if g := first[f.SHA256]; g == nil {
			first[f.SHA256] = f
		} else if f.SHA256 != "" && !sameBlob(f, g) {
			row.fault("sha256", "has the content of "+g.Path+", but size, encoding or stored form differ", "a blob is stored once")
		}
	}
}

func sameBlob(f, g *File) bool {
	return f.Size == g.Size && f.Encoding == g.Encoding && f.StoredSHA256 == g.StoredSHA256 && f.StoredSize == g.StoredSize
}

func checkMention(m mention, files map[string]*File) {
	if m.path == "" {
		return
	}
	f := files[strings.ToLower(m.path)]
	switch {
	case f == nil:
		m.t.fault(m.key, m.path+" is not among the files", "list it as [[file]]")
	case f.Path != m.path:
		m.t.fault(m.key, m.path+" is not among the files", "did you mean "+f.Path+"?")
	case m.exec && f.Mode == "0644":
		m.t.fault(m.key, m.path+" is not executable", `its [[file]] wants mode = "0755"`)
	}
}

// readFile reads one [[file]].
func readFile(t *table) File {
	defer t.done()
	t.need("path", "sha256", "size", "mode")
	f := File{
		Path:   t.file("path"),
		SHA256: t.text("sha256", isHash()),
		Size:   t.integer("size", 0, 0, maxInt),
		Mode:   t.text("mode", rule{func(s string) bool { return s == "0644" || s == "0755" }, `"0644" or "0755"`}),
	}
	if t.has("encoding") {
		t.need("stored_sha256", "stored_size")
		f.Encoding = t.choice("encoding", "zstd")
		f.StoredSHA256 = t.text("stored_sha256", isHash())
		f.StoredSize = t.integer("stored_size", 0, 1, maxStored)
		return f
	}
	t.mark("encoding", "stored_sha256", "stored_size")
	for _, key := range []string{"stored_sha256", "stored_size"} {
		if t.has(key) {
			t.fault(key, "stands here without encoding", `add encoding = "zstd", or take it out`)
		}
	}
	if f.Size > maxStored {
		t.fault("size", fmt.Sprintf("%d is out of range", f.Size), fmt.Sprintf("without encoding at most %d", int64(maxStored)))
	}
	return f
}
