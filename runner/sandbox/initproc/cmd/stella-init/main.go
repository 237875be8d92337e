// Command stella-init is the init process of an attempt and nothing else. The
// build puts it into stella, which starts it instead of itself: a program of a
// few packages is there in half the time of one with several hundred. It does the
// same as stella under the name of the init process.
package main

import (
	"os"

	_ "a.stella/initproc" // takes over before main
)

func main() { os.Exit(2) } // not started as an init process
