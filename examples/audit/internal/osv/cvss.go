package osv

import (
	"math"
	"strings"
)

// Level is a severity in words, by the rating scale of CVSS.
type Level string

// Levels. They reach disk: never change or reuse.
const (
	LevelCritical Level = "critical" // 9.0 to 10.0
	LevelHigh     Level = "high"     // 7.0 to 8.9
	LevelMedium   Level = "medium"   // 4.0 to 6.9
	LevelLow      Level = "low"      // 0.1 to 3.9
	LevelNone     Level = "none"     // 0.0
	LevelUnrated  Level = "unrated"  // the record has no score that can be read here
)

// Rate gives the level of the best-known notation among scores: CVSS 3.0 or
// 3.1. Others are kept as text but not computed; they are unrated. tenths is
// the base score times ten.
func Rate(scores []Severity) (level Level, tenths int, vector string) {
	for _, s := range scores {
		if s.Type != "CVSS_V3" {
			continue
		}
		if n, ok := baseScore(s.Score); ok {
			return levelOf(n), n, s.Score
		}
	}
	if len(scores) > 0 {
		vector = scores[0].Score
	}
	return LevelUnrated, 0, vector
}

func levelOf(tenths int) Level {
	switch {
	case tenths >= 90:
		return LevelCritical
	case tenths >= 70:
		return LevelHigh
	case tenths >= 40:
		return LevelMedium
	case tenths > 0:
		return LevelLow
	}
	return LevelNone
}

// weights of the base metrics, CVSS 3.1 section 7.4. PR depends on scope and
// is done apart.
func weight(metric, value string) (float64, bool) {
	switch metric + ":" + value {
	case "AV:N", "UI:N", "PR:N":
		return 0.85, true
	case "AC:L":
		return 0.77, true
	case "AV:A", "UI:R", "PR:L":
		return 0.62, true
	case "C:H", "I:H", "A:H":
		return 0.56, true
	case "AV:L":
		return 0.55, true
	case "AC:H":
		return 0.44, true
	case "PR:H":
		return 0.27, true
	case "C:L", "I:L", "A:L":
		return 0.22, true
	case "AV:P":
		return 0.2, true
	case "C:N", "I:N", "A:N":
		return 0, true
	}
	return 0, false
}

// baseScore computes the base score of a vector, times ten (CVSS 3.1 section
// 7.1). Temporal and environmental metrics have no part in it.
func baseScore(vector string) (tenths int, ok bool) {
	rest, ok := strings.CutPrefix(vector, "CVSS:3.1/")
	if !ok {
		if rest, ok = strings.CutPrefix(vector, "CVSS:3.0/"); !ok {
			return 0, false
		}
	}
	values := map[string]string{}
	for part := range strings.SplitSeq(rest, "/") {
		name, value, ok := strings.Cut(part, ":")
		if _, twice := values[name]; !ok || twice {
			return 0, false
		}
		values[name] = value
	}
	w := map[string]float64{}
	for _, metric := range []string{"AV", "AC", "PR", "UI", "C", "I", "A"} {
		if w[metric], ok = weight(metric, values[metric]); !ok {
			return 0, false
		}
	}
	changed := values["S"] == "C"
	if !changed && values["S"] != "U" {
		return 0, false
	}
	if changed {
		switch values["PR"] {
		case "L":
			w["PR"] = 0.68
		case "H":
			w["PR"] = 0.5
		}
	}
	iss := 1 - (1-w["C"])*(1-w["I"])*(1-w["A"])
	impact, factor := 6.42*iss, 1.0
	if changed {
		impact, factor = 7.52*(iss-0.029)-3.25*math.Pow(iss-0.02, 15), 1.08
	}
	if impact <= 0 {
		return 0, true
	}
	exploit := 8.22 * w["AV"] * w["AC"] * w["PR"] * w["UI"]
	return roundUp(math.Min(factor*(impact+exploit), 10)), true
}

// roundUp is Roundup of CVSS 3.1 appendix A, which works on whole numbers so
// that every implementation agrees.
func roundUp(x float64) int {
	n := int(math.Round(x * 100_000))
	if n%10_000 == 0 {
		return n / 10_000
	}
	return n/10_000 + 1
}
