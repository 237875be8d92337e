package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/stellarun/stella/server/api"
)

const referenceMark = "<!-- The rest is written by `UPDATE_DOCS=1 go test ./cmd/stella -run TestReference`. -->\n"

// TestReference compares the second part of docs/cli.md with the commands as
// they are, so that every command and every flag is documented.
func TestReference(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "cli.md")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, got, ok := strings.Cut(string(raw), referenceMark)
	if !ok {
		t.Fatalf("%s has no line %q", path, referenceMark)
	}
	want := reference(newRootCmd(newApp()))
	if os.Getenv("UPDATE_DOCS") != "" {
		if err := os.WriteFile(path, []byte(head+referenceMark+want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s is not what the commands say (-commands +file); UPDATE_DOCS=1 writes it:\n%s", path, diff)
	}
}

// reference documents every command below root.
func reference(root *cobra.Command) string {
	var b strings.Builder
	b.WriteString("\n## Global flags\n\n")
	flagTable(&b, root.PersistentFlags())
	b.WriteString("\n## Commands\n")
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Name() == "help" {
			return
		}
		if c != root {
			document(&b, c)
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
	return b.String()
}

func document(b *strings.Builder, c *cobra.Command) {
	fmt.Fprintf(b, "\n### %s\n\n%s.\n", strings.TrimSuffix(c.UseLine(), " [flags]"), c.Short)
	if c.Long != "" {
		fmt.Fprintf(b, "\n%s\n", c.Long)
	}
	if c.LocalNonPersistentFlags().HasAvailableFlags() {
		b.WriteString("\n")
		flagTable(b, c.LocalNonPersistentFlags())
	}
	if c.Example != "" {
		fmt.Fprintf(b, "\n```\n%s\n```\n", strings.ReplaceAll(strings.TrimPrefix(c.Example, "  "), "\n  ", "\n"))
	}
}

func flagTable(b *strings.Builder, flags *pflag.FlagSet) {
	b.WriteString("| flag | meaning |\n|---|---|\n")
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		name := "`--" + f.Name
		if f.Shorthand != "" {
			name = "`-" + f.Shorthand + "`, " + name
		}
		value, usage := pflag.UnquoteUsage(f)
		fmt.Fprintf(b, "| %s` | %s |\n", strings.TrimSpace(name+" "+value), strings.ReplaceAll(usage, "|", `\|`))
	})
}

// TestEveryCommandHelps holds commands to the house rules: a short and a long
// help, an example that names the command, and no word twice.
func TestEveryCommandHelps(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Name() == "help" {
			return
		}
		if c.Short == "" || strings.HasSuffix(c.Short, ".") || c.Long == "" {
			t.Errorf("%s: the short help is %q, the long one has %d bytes", c.CommandPath(), c.Short, len(c.Long))
		}
		if !c.HasSubCommands() && !strings.Contains(c.Example, c.CommandPath()) {
			t.Errorf("%s: the example is %q", c.CommandPath(), c.Example)
		}
		c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			if value, _ := pflag.UnquoteUsage(f); f.Value.Type() != "bool" && value != strings.ToUpper(value) {
				t.Errorf("%s: --%s does not name its value", c.CommandPath(), f.Name)
			}
		})
		for line := range strings.Lines(c.Long + "\n" + c.Example) {
			if len([]rune(line)) > 120 {
				t.Errorf("%s: a line of help is too long for a terminal: %s", c.CommandPath(), line)
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRootCmd(newApp()))
}

// TestExitCodesAreDocumented compares the tables of docs/cli.md with the code,
// both ways.
func TestExitCodesAreDocumented(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "..", "docs", "cli.md"))
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\| (\\d+) \\|")
	doc := map[api.Code]int{}
	for _, m := range row.FindAllStringSubmatch(string(raw), -1) {
		if doc[api.Code(m[1])], err = strconv.Atoi(m[2]); err != nil {
			t.Fatal(err)
		}
	}
	for _, code := range apiCodes(t) {
		exit, ok := doc[code]
		if want := exitCode(code); !ok || exit != want {
			t.Errorf("docs/cli.md says exit %d for %s (%v), the code says %d", exit, code, ok, want)
		}
		delete(doc, code)
	}
	for code, want := range map[api.Code]int{
		codeInterrupted: exitInterrupted, codeUnreachable: exitLocked, codeNotRunning: exitLocked,
		codeRunFailed: exitRunFailed, codeFileInvalid: exitFailed, codeDifferent: exitFailed, codeNotReady: exitFailed, codeWaiting: exitWaiting,
	} {
		if exit, ok := doc[code]; !ok || exit != want {
			t.Errorf("docs/cli.md says exit %d for %s (%v), the code says %d", exit, code, ok, want)
		}
		delete(doc, code)
	}
	for code := range doc {
		t.Errorf("docs/cli.md documents %s, which does not exist", code)
	}
	for _, exit := range []int{exitDone, exitFailed, exitAuth, exitEnded, exitRunFailed, exitRefused, exitLocked, exitDamaged, exitIncomplete, exitWaiting, exitInterrupted} {
		if !strings.Contains(string(raw), fmt.Sprintf("\n| %d | ", exit)) {
			t.Errorf("docs/cli.md does not say what exit %d means", exit)
		}
	}
}

// TestFirstSteps runs the block of README.md below "First steps" as a stranger
// would, in a home that is empty.
func TestFirstSteps(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(raw), "\n## First steps\n\n```\n")
	block, _, ok := strings.Cut(text, "\n```\n")
	build, rest, _ := strings.Cut(block, "\n")
	if !ok || !strings.HasPrefix(build, "make build") {
		t.Fatalf("README.md has no first steps that begin with make build: %q", block)
	}
	home, err := os.MkdirTemp("", "stella") // short: the site's socket is below it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	cmd := exec.Command("sh", "-eux", "-c", rest)
	cmd.Dir = t.TempDir()
	cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH")} // testscript has put stella on it
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "completed") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestEveryDAGOfTheDocsIsValid checks each complete spec that the documents show,
// as orch dag validate does.
func TestEveryDAGOfTheDocsIsValid(t *testing.T) {
	first := regexp.MustCompile(`(?m)^schema = "stella\.dag/1"$`)
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]int{}
	for _, page := range append(pages, "../../README.md") {
		raw, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range first.FindAllIndex(raw, -1) {
			shown[filepath.Base(page)]++
			spec, _, _ := strings.Cut(string(raw[at[0]:]), "\n```")
			spec, _, _ = strings.Cut(spec, "\nEND\n")
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "dag.toml"), []byte(spec+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command("stella", "orch", "dag", "validate", filepath.Join(dir, "dag.toml")).CombinedOutput()
			if err != nil {
				t.Errorf("%s: line %d: %v\n%s", page, 1+strings.Count(string(raw[:at[0]]), "\n"), err, out)
			}
		}
	}
	if shown["languages.md"] == 0 || shown["README.md"] == 0 {
		t.Errorf("the documents show %v specs", shown)
	}
}
