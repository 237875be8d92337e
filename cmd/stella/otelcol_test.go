package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/stellarun/stella/export"
)

// signals are the three files of telemetry in an archive, and what the collector says of
// each.
var signals = []struct{ name, lists, scopes, items, counter string }{
	{"traces", "resourceSpans", "scopeSpans", "spans", "spans"},
	{"metrics", "resourceMetrics", "scopeMetrics", "metrics", "metric_points"},
	{"logs", "resourceLogs", "scopeLogs", "logRecords", "log_records"},
}

// telemetry is the lines of each signal.
type telemetry map[string][]string

// otelcolPath finds the collector, or skips the test, unless the environment says that there
// must be one.
func otelcolPath(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", "bin", "otelcol"))
	if err == nil {
		_, err = os.Stat(path)
	}
	switch {
	case err == nil:
	case strings.Contains(os.Getenv("STELLA_REQUIRE"), "otelcol"):
		t.Fatalf("a collector is required: make otelcol: %v", err)
	default:
		t.Skip("SKIPPED: there is no bin/otelcol (make otelcol); that a collector takes the telemetry was not tested")
	}
	return path
}

// What a stock collector takes of an archive's telemetry is all of it, and the same. It takes
// what it does not understand too, in silence: so each record is counted, and what it writes
// is held against what it was sent.
func TestCollectorTakesTheTelemetry(t *testing.T) {
	path := otelcolPath(t)
	offline(t, func() {
		loopback(t)
		x := &tools{t: t, dir: t.TempDir()}
		sent := telemetryOf(t, eventful(x))
		for _, s := range signals {
			t.Logf("%s: %d lines", s.name, len(sent[s.name]))
		}
		c := &collector{path: path, sent: sent}
		if err := c.run(t); err != nil {
			t.Error(err)
		}
		for name, break_ := range broken {
			t.Run(name, func(t *testing.T) {
				c := &collector{path: path, sent: telemetry{}}
				for signal, lines := range sent {
					c.sent[signal] = slices.Clone(lines)
				}
				if !break_(c.sent) {
					t.Fatal("there is nothing to break")
				}
				err := c.run(t)
				if err == nil {
					t.Error("nobody notices")
				}
				t.Log(err)
			})
		}
	})
}

// broken are what the check must find, each by itself.
var broken = map[string]func(telemetry) bool{
	"a field that is misspelt":   instead("traces", `"name":`, `"nmae":`),
	"an id in base64":            func(s telemetry) bool { return base64ID(s["traces"]) },
	"a kind by its name":         instead("traces", `"kind":1`, `"kind":"SPAN_KIND_INTERNAL"`),
	"a status by its name":       instead("traces", `"code":2`, `"code":"STATUS_CODE_ERROR"`),
	"an instant that is no text": func(s telemetry) bool { return unquoted(s["logs"]) },
	"two objects on a line": func(s telemetry) bool {
		m := s["metrics"]
		s["metrics"] = append([]string{m[0] + m[1]}, m[2:]...)
		return true
	},
	"logs among the traces": func(s telemetry) bool {
		s["traces"], s["logs"] = append(s["traces"], s["logs"][0]), s["logs"][1:]
		return true
	},
	"a line of the ledger": func(s telemetry) bool { s["logs"] = append(s["logs"], `{"seq":1}`); return true },
	"a line that was cut":  func(s telemetry) bool { s["logs"][0] = s["logs"][0][:40]; return true },
}

// instead replaces a text in the first line of a signal that has it.
func instead(signal, old, with string) func(telemetry) bool {
	return func(s telemetry) bool {
		for i, l := range s[signal] {
			if strings.Contains(l, old) {
				s[signal][i] = strings.Replace(l, old, with, 1)
				return true
			}
		}
		return false
	}
}

func base64ID(lines []string) bool {
	before, rest, found := strings.Cut(lines[0], `"spanId":"`)
	if !found || len(rest) < 16 {
		return false
	}
	lines[0] = before + `"spanId":"AAECAwQFBgc=` + rest[16:]
	return true
}

func unquoted(lines []string) bool {
	before, rest, found := strings.Cut(lines[0], `"timeUnixNano":"`)
	digits, rest, ok := strings.Cut(rest, `"`)
	lines[0] = before + `"timeUnixNano":` + digits + rest
	return found && ok
}

// eventful makes an archive of a site with attempts that were repeated, an approval, a run
// below another one, and logs.
func eventful(x *tools) string {
	x.t.Helper()
	for name, spec := range map[string]string{
		"flow-moody": "[[step]]\nid = \"shaky\"\nplugin = \"acme/work-hand@1.0.0\"\naction = \"moody\"\nwith = {mood = \"bad\"}\nretry = {max_attempts = 3, backoff = \"1ms\"}\n",
		"flow-child": "[[step]]\nid = \"say\"\nplugin = \"acme/work@1.0.0\"\naction = \"say\"\nwith = {text = \"<b>\\u00fcn\\U0001F600</b>\"}\n",
		"flow": "[[step]]\nid = \"say\"\nplugin = \"acme/work@1.0.0\"\naction = \"shout\"\ncheckpoint = {question = \"go on?\"}\n" +
			"[[step]]\nid = \"below\"\ndag = \"flow-child@1.0.0\"\nneeds = [\"say\"]\n",
	} {
		if err := os.Mkdir(filepath.Join(x.dir, name), 0o755); err != nil {
			x.t.Fatal(err)
		}
		x.write(name+"/stella.toml", []byte("schema = \"stella.bundle/1\"\nkind = \"dag\"\npublisher = \"acme\"\nname = \""+name+
			"\"\nversion = \"1.0.0\"\nsequence = 1\ncreated = \"2026-11-22T00:00:00.000000000Z\"\n[dag]\nspec = \"dag.toml\"\n"))
		x.write(name+"/dag.toml", []byte("schema = \"stella.dag/1\"\ndag_id = \""+name+"\"\nversion = \"1.0.0\"\n"+spec))
	}
	x.must("stella init --quiet --allow-plain")
	x.must("stella bundle keygen --out stella.key")
	x.must("stella trust add acme --key stella.key.pub --kind plugin,dag --name work,flow --interpreter /bin/sh")
	for _, name := range []string{"work", "hand", "flow-moody", "flow-child", "flow"} {
		if name == "work" || name == "hand" {
			if err := os.CopyFS(filepath.Join(x.dir, name), os.DirFS(filepath.Join("testdata", name))); err != nil {
				x.t.Fatal(err)
			}
		}
		x.must("stella bundle pack " + name + " --out " + name + ".stella")
		x.must("stella bundle sign " + name + ".stella --key stella.key")
		x.must("stella bundle import " + name + ".stella")
		if strings.HasPrefix(name, "flow") {
			x.must("stella orch dag publish " + name + ".stella")
		}
	}
	if code, out := x.run("stella", "orch", "run", "start", "--dag-id", "flow-moody", "--wait"); code != exitRunFailed {
		x.t.Fatalf("the run that fails: exit %d\n%s", code, out)
	}
	approved(x)
	x.must("stella ledger checkpoint")
	x.must("stella export create --out archive.tar")
	return filepath.Join(x.dir, "archive.tar")
}

// approved carries a run out that waits for somebody to agree.
func approved(x *tools) {
	x.t.Helper()
	ended := make(chan string, 1)
	go func() {
		code, out := x.run("stella", "orch", "run", "start", "--dag-id", "flow", "--wait")
		ended <- fmt.Sprintf("exit %d: %s", code, out)
	}()
	for {
		var list struct{ Approvals []struct{ ID string } }
		code, out := x.run("stella", "orch", "approvals", "list", "--output", "json")
		if code == 0 {
			if err := json.Unmarshal([]byte(out), &list); err != nil {
				x.t.Fatalf("%v\n%s", err, out)
			}
		}
		if len(list.Approvals) == 1 {
			x.must("stella orch approvals decide " + list.Approvals[0].ID + " --decision continue")
			break
		}
		select {
		case said := <-ended:
			x.t.Fatalf("the run has ended before anybody agreed: %s", said)
		case <-time.After(20 * time.Millisecond):
		}
	}
	if said := <-ended; !strings.HasPrefix(said, "exit 0:") {
		x.t.Fatal(said)
	}
}

// telemetryOf unpacks the telemetry of an archive, whose manifest counts it.
func telemetryOf(t *testing.T, archive string) telemetry {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out, counted := telemetry{}, map[string]int{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Name == "manifest.json" {
			var m export.Manifest
			if err := json.NewDecoder(r).Decode(&m); err != nil {
				t.Fatal(err)
			}
			for _, file := range m.Files {
				if file.Records != nil {
					counted[file.Path] = int(*file.Records)
				}
			}
		}
		name, ok := strings.CutPrefix(h.Name, "telemetry/")
		if !ok {
			continue
		}
		z, err := zstd.NewReader(r)
		if err != nil {
			t.Fatal(err)
		}
		s := bufio.NewScanner(z)
		s.Buffer(nil, 1<<20)
		for s.Scan() {
			signal := strings.TrimSuffix(name, ".jsonl.zst")
			out[signal] = append(out[signal], s.Text())
		}
		if z.Close(); s.Err() != nil {
			t.Fatal(s.Err())
		}
	}
	for _, s := range signals {
		if n := counted["telemetry/"+s.name+".jsonl.zst"]; n == 0 || n != len(out[s.name]) {
			t.Fatalf("the manifest counts %d lines of %s, and there are %d", n, s.name, len(out[s.name]))
		}
	}
	for _, want := range []string{`"orchestrator.run"`, `"attempt"`, `"parentRunId"`, `"retries","value":{"intValue":"2"}`} {
		if !strings.Contains(strings.Join(out["traces"], "\n"), want) {
			t.Errorf("the traces do not tell of %s", want)
		}
	}
	return out
}

// loopback lets a network namespace talk to itself.
func loopback(t *testing.T) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err == nil {
		lo.SetUint16(unix.IFF_UP)
		err = unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// collector is one that is sent lines, stopped, and held against what it was sent.
type collector struct {
	path string
	sent telemetry
	dir  string
}

// Where it listens: the network namespace is its own.
const (
	otlpAt     = "127.0.0.1:4318"
	countersAt = "127.0.0.1:8888"
)

func (c *collector) config() string {
	text, pipes := "receivers:\n  otlp:\n    protocols:\n      http:\n        endpoint: "+otlpAt+"\nexporters:\n", ""
	for _, s := range signals {
		text += "  file/" + s.name + ":\n    path: " + filepath.Join(c.dir, s.name) + "\n"
		pipes += "    " + s.name + ":\n      receivers: [otlp]\n      exporters: [file/" + s.name + "]\n"
	}
	host, port, _ := strings.Cut(countersAt, ":")
	return text + "service:\n  telemetry:\n    logs:\n      level: warn\n    metrics:\n      readers:\n        - pull:\n            exporter:\n              prometheus:\n" +
		"                host: " + host + "\n                port: " + port +
		"\n                without_scope_info: true\n                without_type_suffix: true\n                without_units: true\n  pipelines:\n" + pipes
}

// run sends everything, and returns the first thing that is not as it must be.
func (c *collector) run(t *testing.T) error {
	t.Helper()
	c.dir = t.TempDir()
	config := filepath.Join(c.dir, "config.yaml")
	if err := os.WriteFile(config, []byte(c.config()), 0o600); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd := exec.Command(c.path, config)
	cmd.Stdout, cmd.Stderr = &said, &said
	until, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan error, 1)
	go func() { gone <- cmd.Wait() }()
	for ready := false; !ready; {
		_, err := counters()
		if conn, takes := net.Dial("tcp", otlpAt); takes == nil { // it counts before it listens
			err = errors.Join(err, conn.Close())
		} else {
			err = takes
		}
		select {
		case err := <-gone:
			t.Fatalf("the collector: %v\n%s", err, &said)
		case <-time.After(10 * time.Millisecond):
			ready = err == nil
		}
	}
	err = c.post()
	count, err2 := counters()
	if err := errors.Join(err2, until.Close(), <-gone); err != nil {
		t.Fatalf("the collector: %v\n%s", err, &said)
	}
	if err != nil {
		return err
	}
	return errors.Join(c.counted(count), c.returned())
}

// post sends each line by itself.
func (c *collector) post() error {
	for _, s := range signals {
		for i, line := range c.sent[s.name] {
			res, err := http.Post("http://"+otlpAt+"/v1/"+s.name, "application/json", strings.NewReader(line))
			if err != nil {
				return err
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || res.StatusCode != http.StatusOK || string(body) != `{"partialSuccess":{}}` {
				return fmt.Errorf("%s line %d: %s %s, %w", s.name, i+1, res.Status, body, err)
			}
		}
	}
	return nil
}

// counters are what the collector counts, the sum of each name.
func counters() (map[string]int64, error) {
	res, err := http.Get("http://" + countersAt + "/metrics")
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	out := map[string]int64{}
	s := bufio.NewScanner(res.Body)
	for s.Scan() {
		name, rest, _ := strings.Cut(s.Text(), "{")
		if _, value, ok := strings.Cut(rest, "} "); ok && strings.HasPrefix(name, "otelcol_") {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return nil, err
			}
			out[name] += int64(n)
		}
	}
	return out, s.Err()
}

// counted: it has accepted and written as many records as the lines have, and no other.
func (c *collector) counted(count map[string]int64) error {
	for _, s := range signals {
		want := int64(0)
		for _, line := range c.sent[s.name] {
			want += records(line, s.lists, s.scopes, s.items)
		}
		for name, want := range map[string]int64{
			"otelcol_receiver_accepted_" + s.counter: want, "otelcol_exporter_sent_" + s.counter: want,
			"otelcol_receiver_refused_" + s.counter: 0, "otelcol_receiver_failed_" + s.counter: 0, "otelcol_exporter_send_failed_" + s.counter: 0,
		} {
			if count[name] != want || want > 0 && count[name] == 0 {
				return fmt.Errorf("%s is %d, want %d", name, count[name], want)
			}
		}
	}
	return nil
}

// records counts what a line has: spans, records of logs, or points of metrics.
func records(line, lists, scopes, items string) (n int64) {
	var all map[string][]map[string]json.RawMessage
	if json.Unmarshal([]byte(line), &all) != nil {
		return 1 // which nobody accepts
	}
	for _, resource := range all[lists] {
		var scope []map[string]json.RawMessage
		_ = json.Unmarshal(resource[scopes], &scope)
		for _, sc := range scope {
			var item []map[string]json.RawMessage
			_ = json.Unmarshal(sc[items], &item)
			for _, it := range item {
				if lists != "resourceMetrics" {
					n++
					continue
				}
				for _, kind := range it {
					var points struct{ DataPoints []json.RawMessage }
					_ = json.Unmarshal(kind, &points)
					n += int64(len(points.DataPoints))
				}
			}
		}
	}
	return n
}

// returned: what it has written is what it was sent.
func (c *collector) returned() error {
	for _, s := range signals {
		raw, err := os.ReadFile(filepath.Join(c.dir, s.name))
		if err != nil {
			return err
		}
		got := strings.Split(strings.TrimSuffix(string(raw), "\n"), "\n")
		if len(got) != len(c.sent[s.name]) {
			return fmt.Errorf("%d lines of %s were sent, %d came back", len(c.sent[s.name]), s.name, len(got))
		}
		for i, line := range c.sent[s.name] {
			if want, got := normal(line), normal(got[i]); want != got {
				return fmt.Errorf("%s line %d came back as another\nsent %s\n got %s", s.name, i+1, want, got)
			}
		}
	}
	return nil
}

// normal is JSON with sorted keys, all numbers as they are written.
func normal(line string) string {
	d := json.NewDecoder(strings.NewReader(line))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil || d.More() {
		return fmt.Sprintf("not one JSON value (%v): %s", err, line)
	}
	out, _ := json.Marshal(v) // of what was just read
	return string(out)
}
