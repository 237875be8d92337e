package manifests

import "time"

// DefaultTrustWarning is how long before trust files run out a site begins to warn
// that does not say otherwise.
const DefaultTrustWarning = 14 * 24 * time.Hour

// Site is site.toml, the configuration of one site. The zero value of each
// field is replaced by its default in [ParseSite].
type Site struct {
	AllowPlain       bool          // attempts may run without fences (THREATS 17)
	Workers          int           // attempts at a time; default: 2
	MaxParallelSteps int           // of one run, where the spec does not say; default 1
	DefaultTenant    string        // default "default"
	Grace            time.Duration // between SIGTERM and SIGKILL; default 10s
	CheckpointEvery  time.Duration // default 1h
	FreeSpaceReserve int64         // bytes kept free for the ledger; default 64 MiB
	MaxBundleBytes   int64         // default 4 GiB
	CheckpointCopies []string      // operator-named paths outside the home (THREATS 27)
	MaxGap           time.Duration // how far the clock may be ahead of the last entry (THREATS 12); default 90 days
	TrustWarning     time.Duration // how long before trust runs out to warn; default 14 days
	Limits           Limits        // defaults of attempts
	Sinks            []Sink        // receivers of events
}
