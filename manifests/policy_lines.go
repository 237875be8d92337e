package manifests

// PublisherLines are the lines of policy.toml at which a publisher and what
// names its signers begin, each in the order of the file.
type PublisherLines struct {
	Publisher    int
	Keys         []int
	Identities   []int
	Attestations []int
}

// PolicyLines finds the lines of each publisher of a policy that [ParsePolicy]
// accepts, in its order; of one that it does not, what can be found.
func PolicyLines(raw []byte) []PublisherLines {
	t := open(&report{}, raw, PolicySchema, MaxBytes)
	if t == nil {
		return nil
	}
	var out []PublisherLines
	lines := func(t *table, key string) []int {
		var at []int
		for _, row := range t.list(key) {
			at = append(at, row.node.line)
		}
		return at
	}
	for _, row := range t.list("publisher") {
		l := PublisherLines{Publisher: row.node.line, Keys: lines(row, "key"), Identities: lines(row, "identity")}
		if require := row.sub("require"); require != nil {
			l.Attestations = lines(require, "attestation")
		}
		out = append(out, l)
	}
	return out
}
