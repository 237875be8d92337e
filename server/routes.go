package server

import (
	"net/http"
	"strings"
)

// Scope is what a caller must be allowed in order to use a route. On the
// socket the site's owner and root hold all of them.
type Scope string

// Scopes of the contract's section 14.
const (
	ScopeRead  Scope = "orchestrator:read"
	ScopeWrite Scope = "orchestrator:write"
	ScopeAdmin Scope = "orchestrator:admin"
)

// A Route is one line of the table that the handler is built from. Its path
// lies below [Prefix]; the last segment may end in :verb.
type Route struct {
	Method string
	Path   string
	Scope  Scope
	Does   string // one line, for people
	// Stream says that the answer is NDJSON: always, or for work that reports
	// its progress when the request accepts it.
	Stream bool
	// Once says that repeating the request does more than doing it once does.
	Once bool

	waits  bool // the answer may be long in coming; ended at once by a shutdown
	handle func(*handler, http.ResponseWriter, *request) error
}

// Routes is every route that is served, in the order of docs/api.md.
func Routes() []Route {
	return []Route{
		{Method: "POST", Path: "/runs", Scope: ScopeWrite, Does: "start a run", handle: (*handler).startRun},
		{Method: "GET", Path: "/runs", Scope: ScopeRead, Does: "list runs, newest first", handle: (*handler).listRuns},
		{Method: "POST", Path: "/runs:plan", Scope: ScopeRead, Does: "say what a start would do", handle: (*handler).planRun},
		{Method: "POST", Path: "/runs:resume", Scope: ScopeWrite, Does: "let all open runs go on", handle: (*handler).resumeRun},
		{Method: "GET", Path: "/runs/{id}", Scope: ScopeRead, Does: "one run with its steps", handle: (*handler).getRun},
		{Method: "POST", Path: "/runs/{id}:cancel", Scope: ScopeWrite, Does: "ask for the end of a run", handle: (*handler).cancelRun},
		{Method: "POST", Path: "/runs/{id}:attest", Scope: ScopeWrite, Does: "sign what a completed run was made of and what became of it", handle: (*handler).attestRun},
		{Method: "POST", Path: "/runs/{id}:replay", Scope: ScopeWrite, Does: "run again what an ended run has run, and compare", Once: true, handle: (*handler).replayRun},
		{Method: "POST", Path: "/runs/{id}:resume", Scope: ScopeWrite, Does: "let an interrupted run go on", handle: (*handler).resumeRun},
		{Method: "POST", Path: "/runs/{id}:retry", Scope: ScopeWrite, Does: "begin a step again", Once: true, handle: (*handler).retryRun},
		{Method: "POST", Path: "/runs/{id}:skip", Scope: ScopeWrite, Does: "pass over a step", handle: (*handler).skipStep},
		{Method: "POST", Path: "/runs/{id}:abort", Scope: ScopeWrite, Does: "end a run at once, without cleanup", handle: (*handler).abortRun},
		{Method: "POST", Path: "/runs/{id}:fail", Scope: ScopeWrite, Does: "end a run as failed", handle: (*handler).failRun},
		{Method: "POST", Path: "/runs/{id}:restart", Scope: ScopeWrite, Does: "stop what is under way and begin it again", Once: true, handle: (*handler).restartRun},
		{Method: "POST", Path: "/runs/{id}:nudge", Scope: ScopeWrite, Does: "end waiting times", handle: (*handler).nudgeRun},
		{Method: "POST", Path: "/runs/{id}:reset", Scope: ScopeWrite, Does: "take steps out of the hands they are in and begin them anew", Once: true, handle: (*handler).resetRun},
		{Method: "GET", Path: "/runs/{id}/steps", Scope: ScopeRead, Does: "the steps of a run", handle: (*handler).listSteps},
		{Method: "GET", Path: "/runs/{id}/steps/{step}", Scope: ScopeRead, Does: "one step with its attempts", handle: (*handler).getStep},
		{Method: "GET", Path: "/runs/{id}/overview", Scope: ScopeRead, Does: "one run with the steps that matter now", handle: (*handler).runOverview},
		{Method: "GET", Path: "/runs/{id}/inspection", Scope: ScopeRead, Does: "the whole story of a run", handle: (*handler).inspectRun},
		{Method: "GET", Path: "/runs/{id}/wait", Scope: ScopeRead, Does: "wait for the end of a run", waits: true, handle: (*handler).waitRun},
		{Method: "GET", Path: "/runs/{id}/logs", Scope: ScopeRead, Does: "stored output of a run", Stream: true, waits: true, handle: (*handler).runLogs},
		{Method: "GET", Path: "/runs/{id}/artifacts", Scope: ScopeRead, Does: "the files that a run has made", handle: (*handler).listArtifacts},
		{Method: "GET", Path: "/artifacts/{hash}", Scope: ScopeRead, Does: "the bytes of one of them", handle: (*handler).readArtifact},

		{Method: "GET", Path: "/sessions", Scope: ScopeRead, Does: "list the output streams of attempts", handle: (*handler).listSessions},
		{Method: "GET", Path: "/sessions/{id}/{step}", Scope: ScopeRead, Does: "the output of one attempt of a step", Stream: true, waits: true, handle: (*handler).captureSession},

		{Method: "GET", Path: "/workspaces", Scope: ScopeRead, Does: "list workspaces that are kept", handle: (*handler).listWorkspaces},
		{Method: "POST", Path: "/workspaces:cleanup", Scope: ScopeAdmin, Does: "remove stale workspaces", Stream: true, handle: (*handler).cleanWorkspaces},

		{Method: "GET", Path: "/approvals", Scope: ScopeRead, Does: "steps that wait for people", handle: (*handler).listApprovals},
		{Method: "GET", Path: "/approvals/{id}", Scope: ScopeRead, Does: "one approval with what it is about", handle: (*handler).showApproval},
		{Method: "POST", Path: "/approvals/{id}:decide", Scope: ScopeWrite, Does: "decide", handle: (*handler).decideApproval},

		{Method: "GET", Path: "/queue", Scope: ScopeRead, Does: "the tenant's part of the queue", handle: (*handler).queueStatus},
		{Method: "GET", Path: "/queue/wait", Scope: ScopeRead, Does: "wait until nothing of it is queued or under way", waits: true, handle: (*handler).waitQueue},
		{Method: "GET", Path: "/queue/dead", Scope: ScopeRead, Does: "steps that only a person lets go on", handle: (*handler).listDead},
		{Method: "POST", Path: "/queue:pause", Scope: ScopeWrite, Does: "claim nothing more; starts are accepted", handle: (*handler).pauseQueue},
		{Method: "POST", Path: "/queue:drain", Scope: ScopeWrite, Does: "accept no starts; what is open goes on", handle: (*handler).drainQueue},
		{Method: "POST", Path: "/queue:resume", Scope: ScopeWrite, Does: "end a pause and a drain", handle: (*handler).resumeQueue},

		{Method: "GET", Path: "/locks", Scope: ScopeRead, Does: "locks and semaphores with their holders", handle: (*handler).listLocks},
		{Method: "GET", Path: "/locks/{id}", Scope: ScopeRead, Does: "the lock and the semaphore of a name", handle: (*handler).showLock},
		{Method: "POST", Path: "/locks/{id}:release", Scope: ScopeWrite, Does: "take a lock from its holder", Once: true, handle: (*handler).releaseLock},

		{Method: "GET", Path: "/cache", Scope: ScopeRead, Does: "outputs that are kept", handle: (*handler).listCache},
		{Method: "POST", Path: "/cache:clear", Scope: ScopeWrite, Does: "forget outputs that are kept", handle: (*handler).clearCache},

		{Method: "GET", Path: "/dags", Scope: ScopeRead, Does: "list published DAG versions", handle: (*handler).listDAGs},
		{Method: "POST", Path: "/dags", Scope: ScopeAdmin, Does: "publish the DAG of an admitted bundle", handle: (*handler).publishDAG},
		{Method: "GET", Path: "/dags/{id}", Scope: ScopeRead, Does: "the highest enabled version of a DAG", handle: (*handler).showDAG},
		{Method: "GET", Path: "/dags/{id}/{version}", Scope: ScopeRead, Does: "one version of a DAG", handle: (*handler).showDAG},
		{Method: "POST", Path: "/dags/{id}/{version}:disable", Scope: ScopeAdmin, Does: "keep a version from being started", handle: (*handler).disableDAG},
		{Method: "POST", Path: "/dags/{id}/{version}:enable", Scope: ScopeAdmin, Does: "let a version be started again", handle: (*handler).enableDAG},

		{Method: "GET", Path: "/schedules", Scope: ScopeRead, Does: "list schedules", handle: (*handler).listSchedules},
		{Method: "POST", Path: "/schedules", Scope: ScopeWrite, Does: "add a schedule", handle: (*handler).addSchedule},
		{Method: "POST", Path: "/schedules:pause", Scope: ScopeWrite, Does: "keep schedules from firing", handle: (*handler).pauseSchedules},
		{Method: "POST", Path: "/schedules:resume", Scope: ScopeWrite, Does: "let schedules fire again", handle: (*handler).resumeSchedules},
		{Method: "POST", Path: "/schedules:remove", Scope: ScopeWrite, Does: "remove schedules", handle: (*handler).removeSchedules},
		{Method: "GET", Path: "/schedules/{id}", Scope: ScopeRead, Does: "one schedule with its inputs", handle: (*handler).showSchedule},
		{Method: "GET", Path: "/schedules/{id}/next", Scope: ScopeRead, Does: "its coming instants", handle: (*handler).nextInstants},
		{Method: "POST", Path: "/schedules/{id}:pause", Scope: ScopeWrite, Does: "keep a schedule from firing", handle: (*handler).pauseSchedules},
		{Method: "POST", Path: "/schedules/{id}:resume", Scope: ScopeWrite, Does: "let a schedule fire again", handle: (*handler).resumeSchedules},
		{Method: "POST", Path: "/schedules/{id}:remove", Scope: ScopeWrite, Does: "remove a schedule", handle: (*handler).removeSchedules},

		{Method: "GET", Path: "/secrets", Scope: ScopeAdmin, Does: "list secrets, without their values", handle: (*handler).listSecrets},
		{Method: "POST", Path: "/secrets", Scope: ScopeAdmin, Does: "keep a new secret", handle: (*handler).setSecret},
		{Method: "GET", Path: "/secrets/{id}/uses", Scope: ScopeAdmin, Does: "the DAGs, runs and attempts of a secret", handle: (*handler).secretUses},
		{Method: "POST", Path: "/secrets/{id}:rotate", Scope: ScopeAdmin, Does: "give a secret a new value", Once: true, handle: (*handler).rotateSecret},
		{Method: "POST", Path: "/secrets/{id}:remove", Scope: ScopeAdmin, Does: "remove a version of a secret, or all", handle: (*handler).removeSecret},

		{Method: "GET", Path: "/bundles", Scope: ScopeRead, Does: "list admitted bundles", handle: (*handler).listBundles},
		{Method: "POST", Path: "/bundles", Scope: ScopeAdmin, Does: "judge a bundle and seal it", Stream: true, handle: (*handler).importBundle},
		{Method: "POST", Path: "/bundles:import", Scope: ScopeAdmin, Does: "judge and seal all bundles in files and folders", Stream: true, handle: (*handler).importMedia},
		{Method: "POST", Path: "/bundles:verify", Scope: ScopeRead, Does: "judge a bundle and keep nothing", Stream: true, handle: (*handler).verifyBundle},
		{Method: "POST", Path: "/bundles:audit", Scope: ScopeAdmin, Does: "hash everything sealed and compare it with the ledger", Stream: true, handle: (*handler).auditStorage},
		{Method: "POST", Path: "/bundles:gc", Scope: ScopeAdmin, Does: "give up what nothing needs", Stream: true, handle: (*handler).collectGarbage},
		{Method: "GET", Path: "/bundles/{ref}", Scope: ScopeRead, Does: "one admitted bundle with its evidence", handle: (*handler).showBundle},

		{Method: "GET", Path: "/trust", Scope: ScopeRead, Does: "the trust in force", handle: (*handler).showTrust},
		{Method: "POST", Path: "/trust", Scope: ScopeAdmin, Does: "add a publisher, a signer or a demand to the policy", Once: true, handle: (*handler).addTrust},
		{Method: "POST", Path: "/trust:rotate", Scope: ScopeAdmin, Does: "replace a publisher's key or the root's", Once: true, handle: (*handler).rotateTrust},
		{Method: "POST", Path: "/trust:revoke", Scope: ScopeAdmin, Does: "revoke a key, bundle, file or identity", Once: true, handle: (*handler).revokeTrust},
		{Method: "POST", Path: "/trust:extend", Scope: ScopeAdmin, Does: "go on with expired trust, or draft what that needs", Once: true, handle: (*handler).extendTrust},
		{Method: "POST", Path: "/trust:accept-time", Scope: ScopeAdmin, Does: "accept a clock that is far from the record", Once: true, handle: (*handler).acceptTime},

		{Method: "GET", Path: "/ledger/entries", Scope: ScopeAdmin, Does: "entries of the ledger", handle: (*handler).tailLedger},
		{Method: "GET", Path: "/ledger/entries/{seq}", Scope: ScopeAdmin, Does: "one entry", handle: (*handler).showLedger},
		{Method: "GET", Path: "/ledger/entries/{seq}/proof", Scope: ScopeAdmin, Does: "inclusion proof of an entry, as a C2SP tlog-proof file; `to` takes an earlier checkpoint", handle: (*handler).proveEntry},
		{Method: "GET", Path: "/ledger/consistency", Scope: ScopeAdmin, Does: "proof that a checkpoint extends a smaller tree", handle: (*handler).proveConsistency},
		{Method: "POST", Path: "/ledger/checkpoints", Scope: ScopeAdmin, Does: "sign the tree head if the tree has grown", handle: (*handler).checkpoint},
		{Method: "GET", Path: "/ledger/cosigned", Scope: ScopeAdmin, Does: "the newest checkpoint that has come back from witnesses", handle: (*handler).cosigned},
		{Method: "POST", Path: "/ledger/cosigned", Scope: ScopeAdmin, Does: "take in a checkpoint that has come back from witnesses", Once: true, handle: (*handler).takeCosigned},
		{Method: "POST", Path: "/ledger:erase", Scope: ScopeAdmin, Does: "ask for the erasure of what people have said in entries, or agree to it", Once: true, handle: (*handler).eraseData},
		{Method: "GET", Path: "/maintenance/archives", Scope: ScopeAdmin, Does: "list archives of runs", handle: (*handler).listArchives},
		{Method: "POST", Path: "/maintenance/archives", Scope: ScopeAdmin, Does: "move what ended runs have left into an archive", Stream: true, Once: true, handle: (*handler).archiveRuns},
		{Method: "GET", Path: "/maintenance/snapshots", Scope: ScopeAdmin, Does: "list snapshots", handle: (*handler).listSnapshots},
		{Method: "POST", Path: "/maintenance/snapshots", Scope: ScopeAdmin, Does: "copy the site while it is in use", Stream: true, Once: true, handle: (*handler).createSnapshot},
		{Method: "POST", Path: "/ledger:verify", Scope: ScopeAdmin, Does: "check the ledger and all records, with `full` also what follows from entries, and what is sealed", Stream: true, handle: (*handler).verifyLedger},

		{Method: "GET", Path: "/outbox", Scope: ScopeAdmin, Does: "sinks, and the events that they have not taken", handle: (*handler).listOutbox},
		{Method: "GET", Path: "/outbox/{event}", Scope: ScopeAdmin, Does: "one event with its payload", handle: (*handler).showEvent},
		{Method: "POST", Path: "/outbox:requeue", Scope: ScopeAdmin, Does: "have events tried again at once", Once: true, handle: (*handler).requeueEvents},
		{Method: "POST", Path: "/outbox:forget", Scope: ScopeAdmin, Does: "give up a sink that is configured no more", handle: (*handler).forgetSink},

		{Method: "GET", Path: "/exports", Scope: ScopeAdmin, Does: "list archives that were written", handle: (*handler).listExports},
		{Method: "POST", Path: "/exports", Scope: ScopeAdmin, Does: "write the archive of a window", Stream: true, Once: true, handle: (*handler).createExport},

		{Method: "GET", Path: "/admin/health", Scope: ScopeRead, Does: "liveness, readiness, queue depth", handle: (*handler).health},
		{Method: "GET", Path: "/admin/status", Scope: ScopeRead, Does: "the state of the site", handle: (*handler).status},
		{Method: "GET", Path: "/admin/queue", Scope: ScopeAdmin, Does: "the queue of all tenants", handle: (*handler).queueStatus},
		{Method: "GET", Path: "/admin/queue/wait", Scope: ScopeAdmin, Does: "wait until nothing is queued or under way", waits: true, handle: (*handler).waitQueue},
		{Method: "POST", Path: "/admin/queue:pause", Scope: ScopeAdmin, Does: "claim nothing more of any tenant", handle: (*handler).pauseQueue},
		{Method: "POST", Path: "/admin/queue:drain", Scope: ScopeAdmin, Does: "accept no starts of any tenant", handle: (*handler).drainQueue},
		{Method: "POST", Path: "/admin/queue:resume", Scope: ScopeAdmin, Does: "end what was paused or drained for all tenants", handle: (*handler).resumeQueue},
		{Method: "POST", Path: "/admin/warm", Scope: ScopeWrite, Does: "read and judge what DAGs need", handle: (*handler).warm},
		{Method: "POST", Path: "/admin/stop", Scope: ScopeAdmin, Does: "end the daemon", handle: (*handler).stop},
	}
}

// A node is what one pattern of the ServeMux leads to: the routes that share
// it, by method and verb. ServeMux wildcards span whole segments, so a verb
// after the wildcard is split off here.
type node map[string]map[string]*Route // verb → method → route

// pattern is the ServeMux pattern of a path, and its verb if that follows a
// wildcard.
func pattern(path string) (pat, verb string) {
	if i := strings.LastIndex(path, "}:"); i >= 0 {
		return path[:i+1], path[i+2:]
	}
	return path, ""
}

// lastWildcard is the name of the wildcard that ends a pattern, "" where none
// does.
func lastWildcard(pat string) string {
	i := strings.LastIndexByte(pat, '{')
	if i < 0 || !strings.HasSuffix(pat, "}") {
		return ""
	}
	return pat[i+1 : len(pat)-1]
}

// verbs says whether routes of the node are told apart by a verb.
func (n node) verbs() bool {
	_, plain := n[""]
	return len(n) > 1 || len(n) == 1 && !plain
}

// nodes groups the table by pattern.
func nodes(table []Route) map[string]node {
	out := map[string]node{}
	for i := range table {
		pat, verb := pattern(table[i].Path)
		if out[pat] == nil {
			out[pat] = node{}
		}
		if out[pat][verb] == nil {
			out[pat][verb] = map[string]*Route{}
		}
		out[pat][verb][table[i].Method] = &table[i]
	}
	return out
}
