package main

import (
	"slices"
	"strings"
)

// claim is a fault that an item says it fixes.
type claim struct {
	cve       string
	completes bool // an earlier fix was not enough
}

// claims returns the faults that an item says it fixes. An item that merely
// mentions a fault says nothing, and so does one that may mean something else:
// what is in doubt is left out. These forms count:
//
//	CVE-2024-0001, CVE-2024-0002: words     the ids come first, alone or after "Fix" and the like
//	d/p/CVE-2024-0001.patch: words          in the name of a patch
//	words (CVE-2024-0001, Closes: #1)       in brackets, with nothing but references
//	Backport a patch for CVE-2024-0001      after a verb in the same sentence
//	words. CVE-2024-0001                    as the last words
func (it item) claims() []claim {
	text := it.text
	ids := findIDs(text)
	if len(ids) == 0 || slices.ContainsFunc(it.under, deniesBelow) || deniesFirst(text) || undoes(text) {
		return nil
	}
	run, isPath := headRun(text, ids)
	said := text
	if len(run) > 0 {
		// What follows the first words describes the fault, in any words.
		end := run[len(run)-1].end
		said = text[:end] + window(text[end:])
	}
	completes := saysAny(said, []string{"complete the fix", "completes the fix", "complete fix for", "incomplete fix for cve", "incomplete patch for cve", "fix was incomplete"})
	if !completes && denies(said) {
		return nil
	}
	var out []claim
	for _, f := range ids {
		inRun := slices.Contains(run, f)
		inText := enclosed(text, f) || len(run) == 0 && (afterVerb(text, f) || last(text, f))
		if inRun || inText && (len(run) == 0 || isPath) {
			out = append(out, claim{f.cve, completes})
		}
	}
	return compactClaims(out)
}

func compactClaims(all []claim) []claim {
	slices.SortFunc(all, func(a, b claim) int { return strings.Compare(a.cve, b.cve) })
	return slices.Compact(all)
}

// undoes says whether an item mends or takes back an earlier fix.
func undoes(text string) bool {
	return saysAny(text, []string{"regression", "regressions", "regressed", "revert", "reverts", "reverted", "reopen", "reopens", "reopened"})
}

// deniesBelow says whether a bullet leaves in doubt what stands below it.
func deniesBelow(text string) bool {
	return saysAny(text, []string{
		"not affected", "not affect", "n't affect", "unaffected", "not vulnerable", "not fixed", "unfixed", "not yet", "ignored", "disputed", "rejected",
		"upstreamed", "no longer applies", "revert", "reverts", "reverted", "reopen", "reopens", "test", "tests", "testcase", "testcases", "mentions",
	})
}

// denies says whether text leaves in doubt that a fault is fixed by what it
// speaks of.
func denies(text string) bool {
	return deniesBelow(text) || saysAny(text, []string{
		"already", "follow-up", "follow up", "followup", "the fix for cve", "the fixes for cve", "'s fix for", "variation", "ftbfs", "mitigate", "mitigates", "mitigating",
		"mitigation", "no longer", "too aggressive", "introduced by", "amend", "amends", "refresh", "refreshed", "rename", "renamed", "pending", "typo", "partial",
		"partially", "no-dsa", "not assigned", "doesn't apply", "not apply", "due to cve", "related to cve", "similar to cve", "see cve",
	})
}

// deniesFirst: an item that begins so speaks of the package, not of a fix.
func deniesFirst(text string) bool {
	word, _, _ := strings.Cut(strings.ToLower(text), " ")
	switch strings.Trim(word, ":,") {
	case "drop", "dropped", "remove", "removed", "disable", "replace", "clarify", "rework", "update", "mention", "document", "adjust", "tweak", "skip", "rebase", "correct", "note":
		return true
	}
	return false
}

// saysAny says whether one of the phrases, in lower case, stands in text at the
// borders of words. A phrase that ends in "cve" may go on with an id.
func saysAny(text string, phrases []string) bool {
	lower := strings.ToLower(text)
	return slices.ContainsFunc(phrases, func(phrase string) bool {
		for at := 0; ; {
			i := strings.Index(lower[at:], phrase)
			if i < 0 {
				return false
			}
			at += i + len(phrase)
			if (at == len(phrase) || !isLetter(lower[at-len(phrase)-1]) || phrase[0] == '\'' || phrase[0] == 'n' && phrase[1] == '\'') && (at == len(lower) || !isLetter(lower[at])) {
				return true
			}
		}
	})
}

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' }

// window is what follows the ids closely enough to be said of them.
func window(rest string) string {
	const bytes = 48
	return rest[:min(len(rest), bytes)]
}

// id is a CVE id at text[start:end].
type id struct {
	cve        string
	start, end int
}

// findIDs finds CVE-YYYY-NNNN with four or more digits at the end.
func findIDs(text string) []id {
	const prefix = "CVE-"
	var out []id
	for at := 0; ; {
		i := strings.Index(text[at:], prefix)
		if i < 0 {
			return out
		}
		start := at + i
		at = start + len(prefix)
		year := digits(text[at:])
		if year != 4 || !strings.HasPrefix(text[at+year:], "-") {
			continue
		}
		number := digits(text[at+year+1:])
		if number < 4 || number > 10 {
			continue
		}
		at += year + 1 + number
		out = append(out, id{text[start:at], start, at})
	}
}

func digits(s string) int {
	return len(s) - len(strings.TrimLeft(s, "0123456789"))
}

// headRun returns the ids with which text begins, when nothing but the words of
// a fix stands before them. isPath says that they are in the name of a file.
func headRun(text string, ids []id) (run []id, isPath bool) {
	start := strings.LastIndexAny(text[:ids[0].start], " (") + 1
	for _, word := range strings.Fields(text[:start]) {
		if !isHeadWord(strings.ToLower(strings.Trim(word, ":,()[]"))) {
			return nil, false
		}
	}
	end := len(text)
	if i := strings.IndexByte(text[ids[0].end:], ' '); i >= 0 {
		end = ids[0].end + i
	}
	token := strings.TrimRight(text[start:end], ":,.;")
	if strings.Contains(token[:ids[0].start-start], "/") || strings.HasSuffix(token, ".patch") || strings.HasSuffix(token, ".diff") {
		for _, f := range ids {
			if f.end <= end {
				run = append(run, f)
			}
		}
		return run, true
	}
	if strings.Trim(text[start:ids[0].start], "[(") != "" { // part of another word
		return nil, false
	}
	run = ids[:1]
	for i := 1; i < len(ids) && isSeparator(text[ids[i-1].end:ids[i].start]); i++ {
		run = ids[:i+1]
	}
	return run, false
}

func isHeadWord(word string) bool {
	switch word {
	case "", "fix", "fixes", "fixed", "fixing", "for", "to", "also", "security", "the", "this", "is", "in", "d/patches", "d/p", "debian/patches", "patch", "patches",
		"add", "adds", "added", "import", "imported", "backport", "backported", "apply", "applied", "cherry-pick", "cherry-picked", "upstream", "upstream's", "new",
		"address", "addresses", "resolve", "resolves", "avoid", "done", "by", "from", "with", "and", "commit", "-":
		return true
	}
	return false
}

// isSeparator: what stands between the ids of one list.
func isSeparator(s string) bool {
	for _, word := range strings.Fields(s) {
		if w := strings.Trim(word, ",;/&()[]+"); w != "" && w != "and" {
			return false
		}
	}
	return len(s) < 16
}

// enclosed says whether f stands in brackets with nothing but references.
func enclosed(text string, f id) bool {
	open := strings.LastIndexAny(text[:f.start], "([")
	length := strings.IndexAny(text[f.end:], ")]")
	if open < 0 || length < 0 {
		return false
	}
	for _, word := range strings.FieldsFunc(text[open+1:f.end+length], func(r rune) bool { return strings.ContainsRune(" ,;/", r) }) {
		if !isReference(strings.ToLower(word)) {
			return false
		}
	}
	return true
}

func isReference(word string) bool {
	word = strings.TrimSuffix(word, ":")
	switch word {
	case "", "and", "closes", "fixes", "fix", "bug", "lp", "&", "+", "aka":
		return true
	}
	for _, prefix := range []string{"cve-", "#", "ghsa-", "glibc-sa-", "gnutls-sa-", "zdi-", "closes:#", "debian:"} {
		if strings.HasPrefix(word, prefix) {
			return true
		}
	}
	return false
}

// afterVerb says whether a verb of fixing stands before f in its sentence.
func afterVerb(text string, f id) bool {
	before := strings.ToLower(text[:f.start])
	for _, end := range []string{". ", ".) ", "? ", "! ", "; "} {
		if i := strings.LastIndex(before, end); i >= 0 {
			before = before[i+len(end):]
		}
	}
	if strings.Count(before, "(") > strings.Count(before, ")") { // an aside
		before = before[strings.LastIndexByte(before, '(')+1:]
	}
	for _, word := range strings.Fields(before) {
		switch strings.Trim(word, ":,()[]'\"") {
		case "fix", "fixes", "fixed", "fixing", "address", "addresses", "addressing", "resolve", "resolves", "patch", "patches", "backport", "closes", "avoid":
			return true
		}
	}
	return false
}

// last says whether text ends with f, or with a list that f is in, apart from
// what it closes.
func last(text string, f id) bool {
	rest := text[f.end:]
	if i := strings.IndexByte(rest, '('); i >= 0 && strings.HasPrefix(strings.ToLower(rest[i:]), "(closes:") && strings.HasSuffix(rest, ")") {
		rest = rest[:i]
	}
	rest = strings.TrimRight(rest, ". ")
	for _, other := range findIDs(rest) {
		rest = strings.Replace(rest, other.cve, "", 1)
	}
	if strings.Trim(rest, " ,;/]") != "" {
		return false
	}
	// A list, or the end of a sentence, has no other word before it that says
	// what the id is there for.
	before := strings.Fields(text[:f.start])
	if len(before) == 0 {
		return true
	}
	switch strings.ToLower(before[len(before)-1]) {
	case "see", "like", "as", "than", "after", "of", "by", "from", "in", "on", "about", "with", "to":
		return false
	}
	return true
}
