package manifests

import (
	"maps"
	"slices"
	"strings"
)

// plugin reads the [plugin] section, and lists the files that it names.
func plugin(t *table) (*Plugin, []mention) {
	defer t.done()
	t.need("runtime", "entry", "actions")
	p := &Plugin{
		Runtime:  Runtime(t.text("runtime", rule{validRuntime, "wasm or exec"})),
		Network:  t.choice("network", "none", "loopback"),
		HostRead: t.texts("host_read", isHostPath()),
	}
	if p.Runtime != RuntimeExec {
		p.Determinism = t.choice("determinism", "fixed", "real")
	} else if t.mark("determinism"); t.has("determinism") {
		t.fault("determinism", "belongs to runtime wasm only", "")
	}
	named := interpreter(t, p)
	named = append(named, entries(t, p)...)
	actions := t.named("actions", isStepID())
	if t.has("actions") && len(actions) == 0 {
		t.fault("actions", "has no action", "want at least one [plugin.actions.NAME]")
	}
	p.Actions = map[string]Action{}
	for _, a := range actions {
		p.Actions[a.node.name] = action(a)
		for _, key := range []string{"params", "outputs"} {
			if s, ok := a.values[key].(string); ok && ValidPath(s) {
				named = append(named, mention{t: a, key: key, path: s})
			}
		}
	}
	return p, named
}

func validRuntime(s string) bool { return s == string(RuntimeWASM) || s == string(RuntimeExec) }

// interpreter reads who runs a script: a program of the host, by its absolute
// path, or a file of the bundle.
func interpreter(t *table, p *Plugin) []mention {
	p.Interpreter = t.text("interpreter", rule{
		func(s string) bool { return s != "/" && validHostPath(s) || ValidPath(s) },
		"an absolute path of the host, or a file here",
	})
	switch {
	case p.Interpreter == "":
	case p.Runtime == RuntimeWASM:
		t.fault("interpreter", "belongs to runtime exec only", "")
	case p.Interpreter[0] != '/':
		return []mention{{t: t, key: "interpreter", path: p.Interpreter, exec: true}}
	}
	return nil
}

// entries reads [plugin.entry]: platform to file.
func entries(t *table, p *Plugin) []mention {
	s := t.sub("entry")
	if s == nil {
		return nil
	}
	p.Entry = map[string]string{}
	var named []mention
	for _, platform := range slices.Sorted(maps.Keys(s.values)) {
		path := s.file(platform)
		p.Entry[platform] = path
		named = append(named, mention{t: s, key: platform, path: path, exec: p.Runtime == RuntimeExec})
		switch {
		case p.Runtime == RuntimeWASM && platform != "any":
			s.fault(platform, "a wasm module is for any platform", `write any = "…"`)
		case p.Runtime == RuntimeExec && !validPlatform(platform):
			s.fault(platform, "is not a platform", `write "linux/amd64" in quotes; any is for wasm only`)
		}
	}
	if len(s.values) == 0 {
		t.fault("entry", "names no file", "")
	}
	return named
}

// validPlatform wants the form of linux/amd64; which ones a site can run is for
// the site to say.
func validPlatform(s string) bool {
	system, machine, ok := strings.Cut(s, "/")
	word := func(s string) bool { return s != "" && len(s) <= 16 && only(s, isLowerDigit) }
	return ok && word(system) && word(machine)
}

func action(t *table) Action {
	defer t.done()
	return Action{
		Description: t.text("description", isProse()),
		Args:        t.lines("args", rule{func(s string) bool { return len(s) <= 4096 && prose(s) }, "text of at most 4096 bytes"}),
		Params:      t.file("params"),
		Outputs:     t.file("outputs"),
		Idempotent:  t.boolean("idempotent", false),
		Secrets:     t.texts("secrets", isName()),
		Limits:      t.limits("limits"),
		Require:     t.texts("require", isStepID()),
	}
}
