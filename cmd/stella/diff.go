package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stellarun/stella/internal/diff"
	"github.com/stellarun/stella/server/api"
)

// addExitCode declares what makes a difference an exit code.
func addExitCode(c *cobra.Command, exitCode *bool) {
	c.Flags().BoolVar(exitCode, "exit-code", false, "exit 1 if they differ")
}

// differ is the error of two things that differ, where that was asked for.
func differ(a, b string, changes int, exitCode bool) error {
	if !exitCode || changes == 0 {
		return nil
	}
	return &outcome{exitFailed, api.Error{Code: codeDifferent,
		Message: fmt.Sprintf("%s and %s differ: %s", a, b, count(changes, "change", "changes"))}}
}

// renderChanges writes changes a line each. Whatever lies below one of the keys
// in named has a name: it is the heading of its fields.
func renderChanges(s *screen, indent string, changes []diff.Change, named []string) {
	last := ""
	for i := range changes {
		c := &changes[i]
		if len(c.Path) < 3 || !slices.Contains(named, c.Path[0]) {
			last = ""
			s.printf("%s%s %s: %s\n", indent, sign(c.Kind), c.Where(), changeText(c))
			continue
		}
		if head := diff.Join(c.Path[:2]); head != last {
			s.printf("%s~ %s\n", indent, head)
			last = head
		}
		s.printf("%s    %s %s: %s\n", indent, sign(c.Kind), diff.Join(c.Path[2:]), changeText(c))
	}
}

// sign is one letter for a kind of change.
func sign(k diff.Kind) string {
	switch k {
	case diff.Added:
		return "+"
	case diff.Removed:
		return "-"
	}
	return "~"
}

func changeText(c *diff.Change) string {
	switch c.Kind {
	case diff.Added:
		return valueText(c.New)
	case diff.Removed:
		return valueText(c.Old)
	}
	return valueText(c.Old) + " → " + valueText(c.New)
}

// maxValue is how much of one value a line shows; JSON has all of it.
const maxValue = 120

// valueText is a value on one line: a word as it is, a whole step or input by
// what it does, all else as JSON.
func valueText(v any) string {
	text := ""
	switch x := v.(type) {
	case string:
		if text = x; !plainWord(x) {
			text = diff.Text(x)
		}
	case map[string]any:
		if text = wholeText(x); text == "" {
			text = diff.Text(x)
		}
	default:
		text = diff.Text(v)
	}
	if r := []rune(text); len(r) > maxValue {
		text = string(r[:maxValue-1]) + "…"
	}
	return text
}

// plainWord says whether text is told from JSON without quotes.
func plainWord(s string) bool {
	if _, err := strconv.ParseFloat(s, 64); err == nil || s == "true" || s == "false" || s == "none" {
		return false
	}
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._/@:+-") == ""
}

// pluginText names a plugin as a spec does, or as a plan does.
func pluginText(v any) string {
	p, ok := v.(map[string]any)
	if !ok {
		return valueText(v)
	}
	return fmt.Sprintf("%v/%v@%v", p["publisher"], p["name"], p["version"])
}

// wholeText tells a step or an input that one side lacks; "" is something else.
func wholeText(m map[string]any) string {
	question, _ := m["checkpoint"].(map[string]any)
	switch {
	case m["plugin"] != nil:
		return pluginText(m["plugin"]) + " " + valueText(m["action"])
	case m["subPlan"] != nil:
		return "a sub-run, plan " + short(fmt.Sprint(m["subPlan"]))
	case m["dag"] != nil:
		return fmt.Sprint("run of ", m["dag"])
	case question != nil:
		return fmt.Sprint("approval: ", question["question"])
	case m["type"] != nil && m["secret"] != nil:
		text := fmt.Sprint(m["type"])
		if m["required"] == true {
			text += ", required"
		}
		if m["default"] != nil {
			text += ", default " + diff.Text(m["default"])
		}
		return text
	}
	return ""
}
