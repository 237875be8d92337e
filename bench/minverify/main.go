// Command minverify verifies one Sigstore signature by a key with sigstore-go
// and nothing else: what a whole process of that costs at least.
//
//	minverify KEY.pub SIGNATURE.sigstore.json FILE
package main

import (
	"fmt"
	"os"

	"github.com/stellarun/stella/bench/minverify/keyflow"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("usage: minverify KEY SIGNATURE FILE")
	}
	var raw [3][]byte
	for i, path := range args {
		var err error
		if raw[i], err = os.ReadFile(path); err != nil {
			return err
		}
	}
	v, err := keyflow.New(raw[0])
	if err != nil {
		return err
	}
	return v.Verify(raw[1], raw[2])
}
