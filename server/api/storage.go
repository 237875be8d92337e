package api

// AuditReport is what an audit of sealed storage found. Everything is listed,
// up to the limit that More counts beyond.
type AuditReport struct {
	Blobs    int64     `json:"blobs"` // files that were hashed, log segments among them
	Bytes    int64     `json:"bytes"`
	Named    int64     `json:"named"`  // blobs and segments that the ledger wants here
	Damage   int       `json:"damage"` // findings that are damage
	Findings []Finding `json:"findings"`
	More     int       `json:"more,omitempty"` // findings beyond those that are listed
	Millis   int64     `json:"millis"`
}

// Finding is one thing that is wrong, or superfluous, in sealed storage.
type Finding struct {
	Kind   string `json:"kind"` // missing | corrupt | foreign | mode | folder | garbage | away
	Damage bool   `json:"damage"`
	Path   string `json:"path"` // below the home
	SHA256 string `json:"sha256,omitempty"`
	Size   int64  `json:"size,omitempty"`
	Detail string `json:"detail"`
	What   string `json:"what,omitempty"`   // what the ledger says that it is
	Seq    int64  `json:"seq,omitempty"`    // of an entry that names it
	Bundle string `json:"bundle,omitempty"` // that brings it, publisher/name@version
	Fix    string `json:"fix"`              // what to do
}

// GCRequest asks for a collection of garbage. Keep, if it is not 0, also gives
// up the contents of bundles that have so many newer ones of the same kind,
// publisher and name, and that no DAG and no run refers to.
type GCRequest struct {
	DryRun bool `json:"dryRun,omitempty"`
	Keep   int  `json:"keep,omitempty"`
}

// GCReport is what a collection gave up, or would give up.
type GCReport struct {
	DryRun       bool     `json:"dryRun"`
	Blobs        int64    `json:"blobs"` // moved to trash/
	Bytes        int64    `json:"bytes"`
	Bundles      []string `json:"bundles"`      // whose contents were given up, publisher/name@version
	Kept         []Kept   `json:"kept"`         // superseded bundles whose contents stay, and why
	Busy         int64    `json:"busy"`         // blobs that somebody is about to use: for a later collection
	TrashFiles   int64    `json:"trashFiles"`   // deleted from trash/, a day after they were given up
	TrashBytes   int64    `json:"trashBytes"`   //
	Seq          []int64  `json:"seq"`          // of the entries
	TrashedUntil string   `json:"trashedUntil"` // when what was moved now may be deleted; "" if nothing was

	Waits string `json:"waits,omitempty"` // why what is agreed to be erased is still on disk
}

// Kept is a superseded bundle that somebody still refers to.
type Kept struct {
	Bundle string `json:"bundle"`
	Why    string `json:"why"`
}
