//go:build race

package sandbox_test

// wasmSlack: the race detector maps memory beyond any limit.
const wasmSlack = 1 << 50
