package manifests

import "time"

// Schema lines: the first line of each file, exactly.
const (
	BundleSchema      = "stella.bundle/1"
	DAGSchema         = "stella.dag/1"
	RootSchema        = "stella.root/1"
	ExtensionSchema   = "stella.extension/1"
	PolicySchema      = "stella.policy/1"
	RevocationsSchema = "stella.revocations/1"
	SiteSchema        = "stella.site/1"
)

// Kind is what a bundle holds.
type Kind string

// Kinds of bundles.
const (
	KindPlugin  Kind = "plugin"
	KindDAG     Kind = "dag"
	KindData    Kind = "data"
	KindTrust   Kind = "trust"
	KindSecrets Kind = "secrets"
)

// Runtime is how a plugin's entry is executed.
type Runtime string

// Runtimes.
const (
	RuntimeExec Runtime = "exec"
	RuntimeWASM Runtime = "wasm"
)

// Bundle is the manifest of a bundle, stella.toml (CONTRACT section 3). A value
// from [ParseBundle] has passed every check that needs nothing but the file.
type Bundle struct {
	Kind          Kind
	Publisher     string
	Name          string
	Version       string // semantic version without a leading v
	Sequence      int64
	Created       time.Time
	NotBefore     time.Time // zero when absent
	Expires       time.Time // zero when absent
	MinStella     string
	Audience      []string // site or fleet ids
	ContentDigest string
	Files         []File // in the order of the manifest
	Plugin        *Plugin
	DAG           *DAGFile
	Data          *Data
	Trust         *TrustFiles
	Secrets       *SecretsFile
}

// File is one [[file]].
type File struct {
	Path         string
	SHA256       string // of the content
	Size         int64
	Mode         string // "0644" or "0755"
	Encoding     string // "" or "zstd"
	StoredSHA256 string // of the bytes in the container; only with an encoding
	StoredSize   int64
}

// Plugin is the [plugin] section.
type Plugin struct {
	Runtime     Runtime
	Network     string // none | loopback; default none
	Determinism string // wasm: fixed | real; default fixed
	HostRead    []string
	Interpreter string            // exec scripts: a host path, or a file here
	Entry       map[string]string // "any" or "linux/amd64" → path of a file here
	Actions     map[string]Action
}

// Action is one [plugin.actions.NAME].
type Action struct {
	Description string
	Args        []string
	Params      string // path of a JSON Schema 2020-12 here; "" accepts any object
	Outputs     string // likewise
	Idempotent  bool
	Secrets     []string
	Limits      Limits
	Require     []string // fences without which it must not start
}

// Limits are ceilings of one attempt. Zero means the site's default.
type Limits struct {
	Memory    int64 // bytes
	CPU       float64
	PIDs      int64
	Timeout   time.Duration
	Workspace int64 // bytes
	Log       int64 // bytes
}

// DAGFile is the [dag] section.
type DAGFile struct{ Spec string }

// Data is the [data] section.
type Data struct{ MediaType string }

// TrustFiles is the [trust] section: paths of files here, "" when absent.
type TrustFiles struct{ Root, Policy, Revocations string }

// SecretsFile is the [secrets] section.
type SecretsFile struct{ File string }

// Ref returns publisher/name@version, which means one digest for ever.
func (b *Bundle) Ref() string { return b.Publisher + "/" + b.Name + "@" + b.Version }
