// Package attempt is what the three programs of the audit share in dealing
// with stella: the time that an attempt goes by, artifacts in one piece, and
// artifacts as parameters.
package attempt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/stellarun/stella/plugin"
)

// Artifact is an artifact of an earlier step as expressions hand it over.
type Artifact struct {
	Name      string `json:"name"`
	SHA256    string `json:"sha256"`
	Size      int64  `json:"size"`
	MediaType string `json:"mediaType"`
}

// Started is when the run was started, in RFC 3339. Programs that go by it
// instead of the clock give the same bytes when they are started again.
func Started() (string, error) {
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return "", errors.New("SOURCE_DATE_EPOCH is not a number of seconds")
	}
	return time.Unix(seconds, 0).UTC().Format(time.RFC3339), nil
}

// Write hands over an artifact.
func Write(c *plugin.Call, name, mediaType string, content []byte) error {
	w, err := c.Artifact(name, mediaType)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, bytes.NewReader(content)); err != nil {
		w.Close()
		return err
	}
	return w.Close()
}

// Read opens the artifact a and decodes it with decode. What decode refuses no
// repetition will mend.
func Read[T any](c *plugin.Call, a Artifact, decode func(io.Reader) (T, error)) (T, error) {
	f, err := c.Input(a.SHA256)
	if err != nil {
		var none T
		return none, err
	}
	defer f.Close()
	v, err := decode(f)
	if err != nil {
		return v, plugin.Rejectf("artifact %s: %w", a.Name, err)
	}
	return v, nil
}

// Outputs hands over several values.
func Outputs(c *plugin.Call, values ...Value) error {
	for _, v := range values {
		if err := c.Output(v.Key, v.Value); err != nil {
			return fmt.Errorf("output %s: %w", v.Key, err)
		}
	}
	return nil
}

// Value is one output.
type Value struct {
	Key   string
	Value any
}
