package manifests

import "time"

// DefaultTrustWarning is how long before trust files run out a site begins to warn
// that does not say otherwise.
const DefaultTrustWarning = 14 * 24 * time.Hour

// Keep says which workspaces outlive their attempts. The strings are those of
// site.toml.
type Keep string

// Values of keep_workspaces.
const (
	KeepFailed Keep = "failed" // of attempts that did not succeed, until a cleanup
	KeepNever  Keep = "never"
	KeepAlways Keep = "always" // until a cleanup
)

// Site is site.toml, the configuration of one site. The zero value of each
// field is replaced by its default in [ParseSite].
type Site struct {
	AllowPlain       bool          // attempts may run without fences (THREATS 17)
	PlainSecrets     bool          // allow_plain_secrets: they may be given secrets there
	Workers          int           // attempts at a time; default: 2
	MaxParallelSteps int           // of one run, where the spec does not say; default 1
	DefaultTenant    string        // default "default"
	Grace            time.Duration // between SIGTERM and SIGKILL; default 10s
	CheckpointEvery  time.Duration // default 1h
	FreeSpaceReserve int64         // bytes kept free for the ledger; default 64 MiB
	MaxBundleBytes   int64         // default 4 GiB
	CheckpointCopies []string      // operator-named paths outside the home (THREATS 27)
	Recipients       []string      // recovery_recipients: public keys of age that snapshots are encrypted to (THREATS 30)
	MaxGap           time.Duration // how far the clock may be ahead of the last entry (THREATS 12); default 90 days
	KeepWorkspaces   Keep          // which workspaces outlive their attempts; default failed
	TrustWarning     time.Duration // how long before trust runs out to warn; default 14 days
	Limits           Limits        // defaults of attempts
	Sinks            []Sink        // receivers of events
	MaxItems         int           // of one for_each; default 1000 (THREATS 24)
	MaxRunEntries    int           // of one run; default 250,000 (THREATS 24)
	Concurrency      Concurrency
	Semaphores       map[string]int64 // name → capacity, for each tenant its own
	Stuck            Stuck
}

// Concurrency is how many attempts may be under way at a time besides
// [Site.Workers]; 0 is no limit. A name in one of the maps has a limit of its own.
type Concurrency struct {
	PerTenant, PerDAG, PerPlugin int
	Tenant, DAG, Plugin          map[string]int // plugins are publisher/name
}

// Stuck is when a run that does not move is said to be stuck, and what is done
// about it. The defaults are 5 minutes, an hour, and nothing.
type Stuck struct {
	Warn        time.Duration // without progress: a warning
	Stalled     time.Duration // then it is stalled
	Chain       bool          // nudge, then restart, then fail what is stalled
	Nudges      int           // default 3, each followed by
	NudgeWait   time.Duration // default 1m
	Restarts    int           // default 2, each followed by
	RestartWait time.Duration // default 5m
}
