package ledger

// ScheduleAddition is the data of [ScheduleAdded]. Of Cron and EveryMs one is
// set; Zone belongs to Cron, Anchor to EveryMs.
type ScheduleAddition struct {
	Name       string            `json:"name"`
	DAGID      string            `json:"dagId"`
	Version    string            `json:"version,omitempty"` // "": the highest enabled one at the instant
	Cron       string            `json:"cron,omitempty"`
	Zone       string            `json:"zone,omitempty"` // "" is UTC
	EveryMs    int64             `json:"everyMs,omitempty"`
	Anchor     string            `json:"anchor,omitempty"` // the first instant
	InputsHash string            `json:"inputsHash"`       // of the sealed inputs
	CatchUpMs  int64             `json:"catchUpMs,omitempty"`
	Overlap    string            `json:"overlap"` // skip | queue | cancel-running | allow
	Metadata   map[string]string `json:"metadata,omitempty" erase:"text"`
}

// ScheduleSwitch is the data of [SchedulePaused], [ScheduleResumed] and
// [ScheduleRemoved].
type ScheduleSwitch struct {
	Name   string `json:"name"`
	Reason string `json:"reason,omitempty" erase:"text"`
}

// ScheduleFiring is the data of [ScheduleFired]: what came of an instant, or of
// several that were skipped for one reason. Exactly one of RunID and Reason is set.
type ScheduleFiring struct {
	Name      string `json:"name"`
	Instant   string `json:"instant"`         // the last one of those that the entry is about
	First     string `json:"first,omitempty"` // the first, where they are several
	Count     int64  `json:"count"`
	RunID     string `json:"runId,omitempty"`
	Reason    string `json:"reason,omitempty"`               // OVERLAP | MISSED | DISABLED | REFUSED
	ErrorCode string `json:"errorCode,omitempty"`            // of REFUSED
	Message   string `json:"message,omitempty" erase:"text"` // of REFUSED, at most 1 KiB
}
