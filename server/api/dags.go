package api

// DAGQuery narrows a list of DAG versions; zero fields do not.
type DAGQuery struct {
	Active bool   `json:"active,omitempty"` // only versions that are enabled
	DAGID  string `json:"dagId,omitempty"`
}

// DAGSwitch asks to disable or to enable a DAG version.
type DAGSwitch struct {
	Reason string `json:"reason,omitempty"` // required to disable
	DryRun bool   `json:"dryRun,omitempty"`
}

// DAGSwitched is what disabling or enabling a DAG version did, or would do.
type DAGSwitched struct {
	DAG        DAG      `json:"dag"`
	Changed    bool     `json:"changed"` // false: it was so before
	DryRun     bool     `json:"dryRun,omitempty"`
	Next       string   `json:"next,omitempty"` // the version that an unpinned start takes from then on; "": none
	ActiveRuns int      `json:"activeRuns"`     // runs of the version that are under way, and go on
	Schedules  []string `json:"schedules"`      // that stop by it, or fire again
}
