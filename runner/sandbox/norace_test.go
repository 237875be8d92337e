//go:build !race

package sandbox_test

// wasmSlack 0 leaves it as it is.
const wasmSlack = 0
