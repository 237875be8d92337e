package provenance

import (
	"cmp"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/stellarun/stella/runner"
)

// statement and what follows are the JSON of in-toto and SLSA, in their words.
type statement struct {
	Type          string     `json:"_type"`
	PredicateType string     `json:"predicateType"`
	Predicate     predicate  `json:"predicate"`
	Subject       []resource `json:"subject"`
}

type resource struct {
	Name        string            `json:"name,omitempty"`
	URI         string            `json:"uri,omitempty"`
	Digest      map[string]string `json:"digest,omitempty"`
	MediaType   string            `json:"mediaType,omitempty"`
	Annotations any               `json:"annotations,omitempty"`
}

type predicate struct {
	BuildDefinition definition `json:"buildDefinition"`
	RunDetails      details    `json:"runDetails"`
}

type definition struct {
	BuildType            string     `json:"buildType"`
	ExternalParameters   external   `json:"externalParameters"`
	InternalParameters   internal   `json:"internalParameters"`
	ResolvedDependencies []resource `json:"resolvedDependencies"`
}

// external is what whoever started the run chose.
type external struct {
	DAG        dag    `json:"dag"`
	InputsHash string `json:"inputsHash"`
	RunToken   string `json:"runToken"`
	Pinned     bool   `json:"pinned"` // he named the version
}

type dag struct {
	ID      string `json:"id"`
	Version string `json:"version"`
}

// internal is what the site made of it.
type internal struct {
	Tenant   string   `json:"tenant"`
	PlanHash string   `json:"planHash"`
	Platform string   `json:"platform"`
	Actor    string   `json:"actor"`
	Behalf   []string `json:"behalf,omitempty"`
	Parent   string   `json:"parentRunId,omitempty"`
	ReplayOf string   `json:"replayOf,omitempty"`
}

type details struct {
	Builder    builder    `json:"builder"`
	Metadata   metadata   `json:"metadata"`
	Byproducts []resource `json:"byproducts"`
}

type builder struct {
	ID           string            `json:"id"`
	Version      map[string]string `json:"version"`
	Dependencies []resource        `json:"builderDependencies"`
}

type metadata struct {
	InvocationID string `json:"invocationId"`
	StartedOn    string `json:"startedOn"`
	FinishedOn   string `json:"finishedOn"`
}

func sha(digest string) map[string]string { return map[string]string{"sha256": digest} }

func (m *maker) predicate(s *story) (predicate, error) {
	used, err := m.used(s.run.PlanHash)
	if err != nil {
		return predicate{}, err
	}
	around, err := m.src.Around(m.ctx, s.run.FirstSeq, s.lastSeq, used.bundles)
	if err != nil {
		return predicate{}, fmt.Errorf("provenance: %w", err)
	}
	if len(around.Starts) == 0 {
		return predicate{}, fmt.Errorf("provenance: no entry says which program executed run %s", s.run.RunID)
	}
	deps, err := used.resources(around.Admissions)
	if err != nil {
		return predicate{}, err
	}
	r := s.run
	return predicate{
		BuildDefinition: definition{
			BuildType:          BuildType,
			ExternalParameters: external{dag{r.DAGID, r.DAGVersion}, r.InputsHash, r.RunToken, r.Pinned != ""},
			InternalParameters: internal{
				Tenant: r.Tenant, PlanHash: r.PlanHash, Platform: used.platform, Actor: r.Actor, Behalf: r.Behalf,
				Parent: r.ParentRunID, ReplayOf: r.ReplayOf,
			},
			ResolvedDependencies: deps,
		},
		RunDetails: details{
			Builder:    m.builder(around.Starts),
			Metadata:   metadata{r.RunID, cmp.Or(r.StartedUTC, r.CreatedUTC), r.EndedUTC},
			Byproducts: m.byproducts(s),
		},
	}, nil
}

// builder is the site, and each program that executed steps there meanwhile.
func (m *maker) builder(starts []Start) builder {
	type start struct {
		Seq     int64  `json:"seq"`
		Version string `json:"version"`
		Mode    string `json:"mode"`
		Config  string `json:"configSha256"`
	}
	b := builder{ID: BuilderID(m.opt.SiteID)}
	for _, x := range starts {
		b.Version = map[string]string{"stella": x.Stella} // the last one: it completed the run
		b.Dependencies = append(b.Dependencies, resource{
			Name: "stella", Digest: sha(x.BinarySHA256), Annotations: start{x.Seq, x.Stella, x.Mode, x.ConfigSHA256},
		})
	}
	return b
}

// usage is what plans name.
type usage struct {
	platform     string
	bundles      []string // digests, the DAG first, in the order of the plan
	plans        map[string]bool
	interpreters map[runner.PlanInterpreter]bool
}

// used collects what a plan and those of its sub-runs name.
func (m *maker) used(planHash string) (*usage, error) {
	u := &usage{plans: map[string]bool{}, interpreters: map[runner.PlanInterpreter]bool{}}
	return u, m.use(u, planHash)
}

func (m *maker) use(u *usage, planHash string) error {
	if u.plans[planHash] {
		return nil
	}
	u.plans[planHash] = true
	p, err := m.src.Plan(planHash)
	if err != nil {
		return fmt.Errorf("provenance: plan %s: %w", planHash, err)
	}
	u.platform = cmp.Or(u.platform, p.Platform)
	u.bundle(p.DAG.Digest)
	for _, st := range p.Steps {
		if st.Plugin != nil {
			u.bundle(st.Plugin.Digest)
		}
		if st.Interpreter != nil {
			u.interpreters[*st.Interpreter] = true
		}
		for _, d := range st.Data {
			u.bundle(d.Digest)
		}
	}
	for _, st := range p.Steps {
		if st.SubPlan == "" {
			continue
		}
		if err := m.use(u, st.SubPlan); err != nil {
			return err
		}
	}
	return nil
}

func (u *usage) bundle(digest string) {
	if !slices.Contains(u.bundles, digest) {
		u.bundles = append(u.bundles, digest)
	}
}

// admitted is what is said of one admission of a bundle.
type admitted struct {
	Seq      int64    `json:"seq"`
	Decision string   `json:"decision"`
	Softened []string `json:"softened,omitempty"` // what level audit let pass
	Signers  []string `json:"signers"`            // ids of keys
	Policy   string   `json:"policy"`             // SHA-256
}

// resources are the bundles with every verdict that held while the run was under
// way, then the programs of the host.
func (u *usage) resources(verdicts map[string][]Admission) ([]resource, error) {
	type note struct {
		Kind       string     `json:"kind"`
		Admissions []admitted `json:"admissions"`
	}
	var out []resource
	for _, digest := range u.bundles {
		list := verdicts[digest]
		if len(list) == 0 {
			return nil, fmt.Errorf("provenance: no entry admits the bundle %s", digest)
		}
		v := list[0].Verdict
		n := note{Kind: v.Kind}
		for _, x := range list {
			signers := []string{}
			for _, s := range x.Verdict.Signers {
				signers = append(signers, s.ID)
			}
			n.Admissions = append(n.Admissions, admitted{x.Seq, x.Verdict.Decision, x.Verdict.Softened, signers, x.Verdict.Trust.Policy})
		}
		out = append(out, resource{Name: v.Publisher + "/" + v.Name + "@" + v.Version, Digest: sha(digest), Annotations: n})
	}
	programs := slices.SortedFunc(maps.Keys(u.interpreters), func(a, b runner.PlanInterpreter) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), strings.Compare(a.SHA256, b.SHA256))
	})
	for _, p := range programs {
		uri := url.URL{Scheme: "file", Path: p.Path}
		out = append(out, resource{Name: p.Path, URI: uri.String(), Digest: sha(p.SHA256), Annotations: map[string]string{"kind": "interpreter"}})
	}
	return out, nil
}

// byproducts are the run and its sub-runs as the ledger tells them, and the output
// of every attempt.
func (m *maker) byproducts(s *story) []resource {
	all := append([]*story{s}, m.subs...)
	out, left := []resource{}, maxListed
	for _, x := range all {
		out = append(out, x.resource(&left))
	}
	for _, x := range all {
		for _, l := range x.logs {
			if len(out)-len(all) == maxListed {
				return out
			}
			out = append(out, x.log(l))
		}
	}
	return out
}

func (s *story) log(l logged) resource {
	type note struct {
		RunID   string `json:"runId,omitempty"` // of a sub-run
		Outcome string `json:"outcome"`
		Bytes   int64  `json:"bytes"`
		Records int64  `json:"records"`
		Dropped int64  `json:"dropped"` // bytes that a cap cut
	}
	n := note{"", l.outcome, l.Bytes, l.Records, l.Dropped}
	if s.path != "" {
		n.RunID = s.run.RunID
	}
	return resource{
		Name: fmt.Sprintf("logs/%s%s/%d", s.path, l.step, l.attempt), Digest: sha(l.SHA256), MediaType: "application/x-ndjson",
		Annotations: n,
	}
}
