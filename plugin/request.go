package plugin

import "encoding/json"

// A Request is what one attempt is asked to do.
type Request struct {
	API     int    `json:"api"` // [API]
	RunID   string `json:"runId"`
	StepID  string `json:"stepId"`
	Action  string `json:"action"` // of the plugin's manifest
	Attempt int    `json:"attempt"`
	// IdempotencyKey is the same for every attempt of a step: hand it to
	// whatever must not happen twice.
	IdempotencyKey string           `json:"idempotencyKey"`
	Params         json.RawMessage  `json:"params"`           // an object that fits the action's schema
	Inputs         map[string]Input `json:"inputs,omitempty"` // artifacts of earlier steps, by SHA-256
	Data           map[string]Data  `json:"data,omitempty"`   // data bundles, by publisher/name@version
	Secrets        []string         `json:"secrets,omitempty"`
	Limits         Limits           `json:"limits"`
}

// An Input is a file that an earlier step handed over, read-only.
type Input struct {
	Path      string `json:"path"` // relative to the attempt's folder
	SHA256    string `json:"sha256"`
	Size      int64  `json:"size"`
	MediaType string `json:"mediaType,omitempty"`
}

// Data is the folder of a data bundle, read-only.
type Data struct {
	Path      string `json:"path"`      // relative to the attempt's folder
	MediaType string `json:"mediaType"` // as its manifest says
	Digest    string `json:"digest"`    // SHA-256 of its manifest
}

// Limits of the attempt; absent means none is set.
type Limits struct {
	Memory    int64   `json:"memory,omitempty"` // bytes
	CPU       float64 `json:"cpu,omitempty"`    // of one processor
	PIDs      int64   `json:"pids,omitempty"`
	TimeoutMs int64   `json:"timeoutMs,omitempty"`
	Workspace int64   `json:"workspace,omitempty"` // bytes below workspace, artifacts and tmp
	Log       int64   `json:"log,omitempty"`       // bytes of stdout and stderr that are kept
}
