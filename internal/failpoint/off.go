//go:build !failpoint

package failpoint

// Hit marks a failpoint. This build has none: it returns nil.
func Hit(string) error { return nil }
