package simtest

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"sync"
)

// ack is something that a client was told is done.
type ack struct {
	Kind    string `json:"kind"` // start, decide, cancel …
	RunID   string `json:"runId"`
	Token   string `json:"token,omitempty"`
	StepID  string `json:"stepId,omitempty"`
	Attempt int    `json:"attempt,omitempty"`
	Actor   string `json:"actor"`
	Changed bool   `json:"changed"` // false: it was so before
	Seq     int64  `json:"seq"`     // the newest entry of the run that the client has seen
	Mark    string `json:"mark,omitempty"`
	N       int    `json:"n,omitempty"`    // entries with the mark
	Size    int64  `json:"size,omitempty"` // of the ledger, as the client was told
	ID      string `json:"id,omitempty"`   // of a snapshot
	Text    string `json:"text,omitempty"` // that is erased from entry Seq
}

// journal is what all clients were told, on disk before they go on.
type journal struct {
	mu sync.Mutex
	f  *os.File
}

func newJournal(path string) (*journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	return &journal{f: f}, err
}

func (j *journal) add(a ack) error {
	raw, err := json.Marshal(a)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	_, err = j.f.Write(append(raw, '\n'))
	return errors.Join(err, j.f.Sync())
}

// read reads everything back.
func (j *journal) read() ([]ack, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	f, err := os.Open(j.f.Name())
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []ack
	s := bufio.NewScanner(f)
	for s.Scan() {
		var a ack
		if err := json.Unmarshal(s.Bytes(), &a); err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	return all, s.Err()
}
