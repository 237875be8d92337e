package verify

import (
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/stellarun/stella/manifests"
)

// capabilities compares what a plugin asks for with the publisher's ceiling.
func (j *judgement) capabilities() error {
	p := j.in.Manifest.Plugin
	if p == nil || j.publisher == nil {
		return nil
	}
	allow := &j.publisher.Allow
	if p.Network == "loopback" && allow.Network != "loopback" {
		return reject(CapabilityExceeded, "plugin.network", "%s is asked for, none is allowed", p.Network)
	}
	for _, want := range p.HostRead {
		if !slices.ContainsFunc(allow.HostRead, func(top string) bool { return below(want, top) }) {
			return reject(CapabilityExceeded, "plugin.host_read", "%s is not below an allowed path", want)
		}
	}
	if path.IsAbs(p.Interpreter) && !slices.Contains(allow.Interpreters, p.Interpreter) {
		return reject(CapabilityExceeded, "plugin.interpreter", "%s is not allowed", p.Interpreter)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Actions)) {
		if err := action("plugin.actions."+name, p.Actions[name], j.in.Manifest.Name, allow); err != nil {
			return err
		}
	}
	return nil
}

// below says whether path is top or lies below it.
func below(p, top string) bool {
	return p == top || strings.HasPrefix(p, strings.TrimSuffix(top, "/")+"/")
}

// action compares one action of a plugin with the ceiling. A limit that it leaves
// to the site is below any. For which DAGs and tenants a secret is granted is
// judged at each attempt.
func action(key string, a manifests.Action, plugin string, allow *manifests.Allow) error {
	for _, want := range a.Secrets {
		if !slices.ContainsFunc(allow.Secrets, func(g manifests.SecretGrant) bool { return g.Name == want && slices.Contains(g.Plugins, plugin) }) {
			return reject(CapabilityExceeded, key+".secrets", "the secret %s is not granted to %s", want, plugin)
		}
	}
	ask, most := a.Limits, allow.Limits
	for _, l := range []struct {
		name      string
		ask, most int64
	}{
		{"memory", ask.Memory, most.Memory},
		{"pids", ask.PIDs, most.PIDs},
		{"timeout", int64(ask.Timeout), int64(most.Timeout)},
		{"workspace", ask.Workspace, most.Workspace},
		{"log", ask.Log, most.Log},
	} {
		if l.most > 0 && l.ask > l.most {
			return reject(CapabilityExceeded, key+".limits."+l.name, "%d is asked for, %d is allowed", l.ask, l.most)
		}
	}
	if most.CPU > 0 && ask.CPU > most.CPU {
		return reject(CapabilityExceeded, key+".limits.cpu", "%g is asked for, %g is allowed", ask.CPU, most.CPU)
	}
	return nil
}
