package engine

import (
	"context"
	"time"

	"github.com/stellarun/stella/server/api"
)

// StartForSchedule starts what a schedule would start at an instant, and
// records nothing of the schedule: a kill in between leaves that.
func StartForSchedule(e *Engine, name string, at time.Time, req api.StartRequest) (api.StartResult, error) {
	req.RunToken = scheduleToken(name, at)
	s := &site{e: e, actor: "schedule:" + name, tenant: e.site.DefaultTenant}
	return s.start(context.Background(), req)
}
