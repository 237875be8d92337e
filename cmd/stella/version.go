package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
)

// versionInfo says which program this is.
type versionInfo struct {
	Version  string `json:"version"`
	Commit   string `json:"commit"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	SHA256   string `json:"sha256,omitempty"` // of this executable
}

func newVersionCmd(a *app) *cobra.Command {
	var verbose bool
	c := &cobra.Command{
		Use:   "version",
		Short: "Print which stella this is",
		Long: "Print version, commit and Go version. With --verbose also the SHA-256 of the running\n" +
			"executable, which each start records in the ledger.",
		Example: "  stella version --verbose",
		Args:    cobra.NoArgs,
		RunE:    func(*cobra.Command, []string) error { return runVersion(a, verbose) },
	}
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "with the executable's own SHA-256")
	return c
}

func runVersion(a *app, verbose bool) error {
	info := versionInfo{Version: version, Commit: commit, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if verbose {
		var err error
		if info.SHA256, err = ownDigest(); err != nil {
			return err
		}
	}
	return a.emit(info, func(s *screen) {
		if !verbose {
			s.printf("stella %s (%s)\n", info.Version, shortCommit(info.Commit))
			return
		}
		s.fields("version", info.Version, "commit", info.Commit, "go", info.Go, "platform", info.Platform, "sha256", info.SHA256)
	})
}

func ownDigest() (string, error) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return "", fmt.Errorf("own executable: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("own executable: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// shortCommit is the part of a commit's id that people compare, and whether the
// tree was changed since.
func shortCommit(id string) string {
	id, changed, dirty := strings.Cut(id, "+")
	if id = id[:min(12, len(id))]; id == "" {
		id = "unknown"
	}
	if dirty {
		id += "+" + changed
	}
	return id
}
