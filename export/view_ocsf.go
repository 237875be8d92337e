package export

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/ledger"
)

// ocsfVersion is the version of the schema that events are of.
const ocsfVersion = "1.8.0"

// Classes and activities of it that are used. All are of the category Application
// Activity, 6.
const (
	classLifecycle = 6002
	classAPI       = 6003
)

// ocsfClass says what an entry of a type is as an event.
type ocsfClass struct {
	uid      int
	activity int
}

// lifecycle is the activity of a type that is about programs, stella itself and what it
// runs; 0 of others.
func lifecycle(t ledger.Type) int {
	switch t {
	case ledger.SiteInitialized, ledger.BundleAdmitted, ledger.BundleRejected, ledger.DAGPublished:
		return 1
	case ledger.SiteStarted:
		return 3
	case ledger.SiteStopped:
		return 4
	case ledger.DAGEnabled:
		return 6
	case ledger.DAGDisabled:
		return 7
	}
	return 0
}

// classOf is the class of a type. What is not about programs is an activity, which the
// verb of the type tells: a type that a newer stella has brought is one as well.
func classOf(t ledger.Type) ocsfClass {
	if a := lifecycle(t); a != 0 {
		return ocsfClass{classLifecycle, a}
	}
	_, verb, _ := strings.Cut(string(t), ".")
	switch {
	case t == ledger.GCCompleted:
		return ocsfClass{classAPI, 4}
	case strings.HasSuffix(verb, "requested") && !strings.HasPrefix(string(t), "approval."):
		return ocsfClass{classAPI, 3}
	}
	switch verb {
	case "added", "set", "started", "requested", "created", "admitted", "received", "attested":
		return ocsfClass{classAPI, 1}
	case "compared":
		return ocsfClass{classAPI, 2}
	case "removed", "forgotten", "cleared", "erased":
		return ocsfClass{classAPI, 4}
	}
	return ocsfClass{classAPI, 3}
}

// activityName is the caption that the schema has for an activity of a class.
func (c ocsfClass) activityName() string {
	if c.uid == classLifecycle {
		return []string{"", "Install", "Remove", "Start", "Stop", "Restart", "Enable", "Disable"}[c.activity]
	}
	return []string{"", "Create", "Read", "Update", "Delete"}[c.activity]
}

func (c ocsfClass) name() string {
	if c.uid == classLifecycle {
		return "Application Lifecycle"
	}
	return "API Activity"
}

// events are the OCSF lines of a view.
type events struct {
	w      *viewWriter
	siteID string
	stella string
}

func newEvents(f *viewFolder) (sink, error) {
	w, err := f.create("events.ndjson")
	return &events{w, f.v.siteID, f.v.m.Stella}, err
}

func (x *events) run(*story) error { return nil } // its entries say it all

func (x *events) entry(e entry) error {
	event, err := x.event(e)
	if err != nil {
		return err
	}
	raw, err := jcs.Marshal(event)
	if err != nil {
		return err
	}
	x.w.records++
	_, err = x.w.Write(append(raw, '\n'))
	return err
}

// object is a JSON object; what is empty is left out by [set].
type object map[string]any

func (o object) set(key string, v any) {
	if v != "" && v != nil && v != 0 {
		o[key] = v
	}
}

func (x *events) event(e entry) (object, error) {
	env, c := e.Envelope, classOf(e.Envelope.Type)
	at, err := stamp.Parse(env.Time)
	if err != nil {
		return nil, err
	}
	data, err := e.dataOf()
	if err != nil {
		return nil, err
	}
	status, code := outcomeOf(e)
	severity := map[int]int{0: 1, 1: 1, 2: 3}[status]
	out := object{
		"activity_id": c.activity, "activity_name": c.activityName(), "category_uid": 6, "category_name": "Application Activity",
		"class_uid": c.uid, "class_name": c.name(), "type_uid": c.uid*100 + c.activity, "type_name": c.name() + ": " + c.activityName(),
		"time": at.UnixMilli(), "timezone_offset": 0, "status_id": status, "status": []string{"Unknown", "Success", "Failure"}[status],
		"severity_id": severity, "severity": []string{"", "Informational", "Low", "Medium"}[severity],
		"metadata": x.metadata(env, c), "actor": actorOf(env.Actor), "unmapped": unmapped(e, data),
	}
	out.set("status_code", code)
	for _, info := range ledger.Types() {
		if info.Type == env.Type {
			out["message"] = info.Doc
		}
	}
	if c.uid == classLifecycle {
		out["app"] = x.app(e)
		return out, nil
	}
	out["api"] = object{"operation": string(env.Type), "version": strconv.Itoa(env.V)}
	out["src_endpoint"] = object{"name": "stella", "uid": x.siteID}
	if r := resources(env); len(r) > 0 {
		out["resources"] = r
	}
	return out, nil
}

func (x *events) metadata(env ledger.Envelope, c ocsfClass) object {
	m := object{
		"version": ocsfVersion, "product": object{"name": "stella", "vendor_name": "stella", "version": x.stella},
		"log_name": "ledger", "sequence": env.Seq, "uid": "stella/" + x.siteID + "/" + strconv.FormatInt(env.Seq, 10),
		"event_code": string(env.Type), "original_time": env.Time,
	}
	m.set("tenant_uid", env.Tenant)
	m.set("correlation_uid", env.RunID)
	if c.uid == classLifecycle {
		m["profiles"] = []string{"host"} // which is where this class has its actor from
	}
	return m
}

// outcomeOf is the status of what an entry records, with its code.
func outcomeOf(e entry) (status int, code string) {
	switch d := e.Data.(type) {
	case *ledger.BundleRejection:
		return 2, d.Reason
	case *ledger.RunEnd:
		code = d.FailureReason
	case *ledger.StepEnd:
		code = d.ErrorCode
	case *ledger.AttemptEnd:
		if d.Outcome != "succeeded" {
			return 2, orElse(d.ErrorCode, d.Outcome)
		}
	case *ledger.ApprovalRefusal:
		return 2, d.Code
	}
	switch e.Envelope.Type {
	case ledger.BundleRejected, ledger.BundlesRejected, ledger.RunFailed, ledger.StepFailed, ledger.OutboxDead, ledger.ApprovalRefused, ledger.RunTimedOut:
		return 2, code
	case ledger.AttemptEnded:
		if e.Data == nil { // withheld: nobody can say
			return 0, ""
		}
	}
	return 1, code
}

func orElse(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// actorOf takes a principal apart.
func actorOf(actor string) object {
	kind, id, _ := strings.Cut(actor, ":")
	switch kind {
	case "uid":
		uid, name, _ := strings.Cut(strings.TrimSuffix(id, ")"), "(")
		u := object{"uid": uid, "type": "User", "type_id": 1}
		u.set("name", name)
		return object{"user": u}
	case "cert", "token":
		return object{"user": object{"uid": actor, "name": id, "type": "Service", "type_id": 4}}
	}
	return object{"app_name": actor}
}

// resources are what an entry is about.
func resources(env ledger.Envelope) []object {
	var out []object
	add := func(kind, uid, name, version string) {
		r := object{"type": kind, "uid": uid, "role": "Target", "role_id": 1}
		r.set("name", name)
		r.set("version", version)
		r.set("namespace", env.Tenant)
		out = append(out, r)
	}
	if env.RunID != "" {
		add("run", env.RunID, "", "")
	}
	if env.StepID != "" {
		add("step", env.RunID+"/"+env.StepID, env.StepID, "")
	}
	if env.DAGID != "" {
		add("dag", env.DAGID+"@"+env.DAGVersion, env.DAGID, env.DAGVersion)
	}
	return out
}

// app is the program that an entry about a lifecycle is about.
func (x *events) app(e entry) object {
	switch d := e.Data.(type) {
	case *ledger.BundleAdmission:
		v := d.Verdict
		return object{"name": v.Publisher + "/" + v.Name, "vendor_name": v.Publisher, "version": v.Version, "uid": v.Digest}
	case *ledger.BundleRejection:
		return object{"name": "unknown", "uid": orElse(d.Digest, d.FileSHA256)}
	case *ledger.DAGPublication:
		return object{"name": d.DAGID, "vendor_name": d.Publisher, "version": d.Version, "uid": d.Digest}
	case *ledger.DAGSwitch:
		return object{"name": d.DAGID, "version": d.Version}
	case *ledger.SiteStart:
		return object{"name": "stella", "vendor_name": "stella", "version": d.Stella, "uid": d.BinarySHA256}
	}
	return object{"name": "stella", "vendor_name": "stella", "uid": x.siteID}
}

func unmapped(e entry, data json.RawMessage) object {
	env := e.Envelope
	u := object{"seq": env.Seq, "type": string(env.Type), "v": env.V, "dataHash": env.DataHash}
	for key, v := range map[string]string{"runId": env.RunID, "stepId": env.StepID, "dagId": env.DAGID, "dagVersion": env.DAGVersion, "traceId": env.TraceID, "withheld": e.withheld} {
		u.set(key, v)
	}
	u.set("attempt", env.Attempt)
	if data != nil {
		u["data"] = data
	}
	return u
}
