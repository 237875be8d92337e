package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/stellarun/stella/internal/jcs"
	"github.com/stellarun/stella/plugin"
	"github.com/stellarun/stella/runner"
)

// errLimit marks results that exceed a limit, as against results that are
// malformed.
var errLimit = errors.New("limit")

// readOutput reads what the program wrote, through the descriptor that has been
// open since before the program ran. The second result names the limit that
// was exceeded, "" if none was. Where there is a fault or an excess, no result
// counts.
func readOutput(dir string, p *prepared) (runner.Output, string) {
	raw, err := io.ReadAll(io.LimitReader(io.NewSectionReader(p.output, 0, plugin.MaxOutput+1), plugin.MaxOutput+1))
	if err != nil {
		return runner.Output{Fault: "the output file cannot be read: " + err.Error()}, ""
	}
	if len(raw) > plugin.MaxOutput {
		return runner.Output{}, fmt.Sprintf("output of more than %d bytes", plugin.MaxOutput)
	}
	if !stillThere(filepath.Join(dir, outputFile), p.output) {
		return runner.Output{Fault: "the output file was removed or replaced; lines are to be appended to the one that is there"}, ""
	}
	out, artifacts, err := parseOutput(raw)
	switch {
	case errors.Is(err, errLimit):
		return runner.Output{Truncated: out.Truncated}, err.Error()
	case err != nil:
		return runner.Output{Truncated: out.Truncated, Fault: err.Error()}, ""
	}
	for _, a := range artifacts {
		out.Artifacts = append(out.Artifacts, runner.ArtifactFile{
			Name: a.Name, MediaType: a.MediaType,
			Open: func() (io.ReadCloser, error) {
				return openArtifact(filepath.Join(dir, artifactsDir), p.artifacts, a.Path)
			},
		})
	}
	return out, ""
}

// stillThere says whether path names the open file.
func stillThere(path string, f *os.File) bool {
	a, err := os.Lstat(path)
	if err != nil {
		return false
	}
	b, err := f.Stat()
	return err == nil && os.SameFile(a, b)
}

// An artifactLine is what an artifact line says.
type artifactLine struct{ Name, Path, MediaType string }

// An outputParser holds what the lines so far have said.
type outputParser struct {
	out       runner.Output
	artifacts []artifactLine
	names     map[string]bool // of artifacts
}

// parseOutput reads the lines of package plugin. An error that is errLimit is
// an excess, any other a breach of the contract; neither quotes more of the
// input than a key.
func parseOutput(raw []byte) (runner.Output, []artifactLine, error) {
	p := outputParser{names: make(map[string]bool)}
	for n := 1; len(raw) > 0; n++ {
		line, rest, ok := bytes.Cut(raw, []byte{'\n'})
		if !ok {
			p.out.Truncated = true
			break
		}
		raw = rest
		if err := p.line(line); err != nil {
			return p.out, nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	return p.out, p.artifacts, nil
}

// An outputLine is any line: exactly one of its kinds is there.
type outputLine struct {
	Output   map[string]json.RawMessage `json:"output"`
	Artifact *struct {
		Name      string `json:"name"`
		Path      string `json:"path"`
		MediaType string `json:"mediaType"`
	} `json:"artifact"`
	Progress *float64            `json:"progress"`
	Message  *string             `json:"message"`
	Error    *runner.PluginError `json:"error"`
}

// parseLine reads one line strictly: one JSON object, no key twice at any
// depth, no unknown key. Its values are canonical.
func parseLine(line []byte) (*outputLine, error) {
	canonical, err := jcs.Canonicalize(line)
	if err != nil {
		return nil, err
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(canonical, &keys); err != nil || keys == nil {
		return nil, errors.New("not a JSON object")
	}
	if err := exactKeys(keys); err != nil {
		return nil, err
	}
	var l outputLine
	d := json.NewDecoder(bytes.NewReader(canonical))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil {
		return nil, errors.New("a field that is unknown or of the wrong type")
	}
	return &l, nil
}

// exactKeys checks the shape that decoding into a struct does not: keys are
// compared exactly, and null stands for nothing.
func exactKeys(keys map[string]json.RawMessage) error {
	kinds := 0
	for key, raw := range keys {
		var inner []string
		switch key {
		case "output", "progress", "message":
		case "artifact":
			inner = []string{"name", "path", "mediaType"}
		case "error":
			inner = []string{"code", "message", "retryable", "retryAfterMs"}
		default:
			return errors.New("unknown kind of line")
		}
		if key != "message" {
			kinds++
		}
		if string(raw) == "null" {
			return fmt.Errorf("%s is null", key)
		}
		if inner == nil {
			continue
		}
		var object map[string]json.RawMessage
		if json.Unmarshal(raw, &object) != nil {
			return fmt.Errorf("%s is not an object", key)
		}
		for name, value := range object {
			if !slices.Contains(inner, name) || string(value) == "null" {
				return fmt.Errorf("%s has an unknown field, or one that is null", key)
			}
		}
	}
	if _, ok := keys["message"]; kinds != 1 || ok && keys["progress"] == nil {
		return errors.New("not exactly one kind of line")
	}
	return nil
}

func (p *outputParser) line(line []byte) error {
	l, err := parseLine(line)
	if err != nil {
		return err
	}
	switch {
	case l.Output != nil:
		return p.outputs(l.Output)
	case l.Artifact != nil:
		return p.artifact(artifactLine(*l.Artifact))
	case l.Progress != nil:
		_, _, err := l.progress()
		return err
	default:
		return p.failure(l.Error)
	}
}

func (p *outputParser) outputs(values map[string]json.RawMessage) error {
	if p.out.Values == nil && len(values) > 0 {
		p.out.Values = make(map[string]json.RawMessage)
	}
	for key, raw := range values {
		switch {
		case len(raw) > plugin.MaxValue:
			return fmt.Errorf("an output value of more than %d bytes: %w", plugin.MaxValue, errLimit)
		case p.out.Values[key] != nil:
			return fmt.Errorf("output %.64q was already given", key)
		}
		p.out.Values[key] = raw
	}
	if len(p.out.Values) > plugin.MaxKeys {
		return fmt.Errorf("more than %d output keys: %w", plugin.MaxKeys, errLimit)
	}
	return nil
}

func (p *outputParser) artifact(a artifactLine) error {
	if a.Path == "" {
		a.Path = a.Name
	}
	switch {
	case !validName(a.Name) || !validName(a.Path):
		return errors.New("an artifact's name or path is not a relative path of [A-Za-z0-9._+@/-]")
	case !validMediaType(a.MediaType):
		return errors.New("an artifact's media type is not printable ASCII of at most 255 bytes")
	case p.names[a.Name]:
		return fmt.Errorf("artifact %s was already given", a.Name)
	case len(p.names) == plugin.MaxArtifacts:
		return fmt.Errorf("more than %d artifacts: %w", plugin.MaxArtifacts, errLimit)
	}
	p.names[a.Name] = true
	p.artifacts = append(p.artifacts, a)
	return nil
}

func (p *outputParser) failure(e *runner.PluginError) error {
	const day = 24 * 60 * 60 * 1000
	switch {
	case p.out.Error != nil:
		return errors.New("a second error line")
	case !validCode(e.Code):
		return errors.New("an error code is not of the form [A-Za-z0-9_.-]{1,64}")
	case len(e.Message) > plugin.MaxMessage:
		return fmt.Errorf("a message of more than %d bytes: %w", plugin.MaxMessage, errLimit)
	case e.RetryAfterMs < 0 || e.RetryAfterMs > day:
		return errors.New("retryAfterMs does not lie between 0 and a day")
	}
	p.out.Error = e
	return nil
}

// progress checks a progress line.
func (l *outputLine) progress() (float64, string, error) {
	var message string
	if l.Message != nil {
		message = *l.Message
	}
	switch f := *l.Progress; {
	case f < 0 || f > 1:
		return 0, "", errors.New("progress does not lie between 0 and 1")
	case len(message) > plugin.MaxMessage:
		return 0, "", fmt.Errorf("a message of more than %d bytes: %w", plugin.MaxMessage, errLimit)
	default:
		return f, message, nil
	}
}

// validName is a clean, relative, slash-separated path of at most 255 bytes of
// [A-Za-z0-9._+@/-].
func validName(s string) bool {
	if s == "" || len(s) > 255 {
		return false
	}
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || part == "." || part == ".." {
			return false
		}
	}
	for i := range len(s) {
		if !isAlnum(s[i]) && strings.IndexByte("._+@/-", s[i]) < 0 {
			return false
		}
	}
	return true
}

func validCode(s string) bool {
	for i := range len(s) {
		if !isAlnum(s[i]) && strings.IndexByte("_.-", s[i]) < 0 {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

func validMediaType(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return len(s) <= 255
}

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}
