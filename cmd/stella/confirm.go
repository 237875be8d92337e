package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"github.com/stellarun/stella/server/api"
)

// confirm asks before something that cannot be undone. Where nobody can be
// asked, --yes must have been said.
func (a *app) confirm(question string) error {
	if a.opt.yes {
		return nil
	}
	if f, ok := a.stdin.(*os.File); !ok || !isTerminal(f) {
		return &api.Error{Code: api.CodeInvalid, Message: "this needs a confirmation: " + question,
			Hint: "run it on a terminal, or say --yes; most such commands have --dry-run"}
	}
	a.stderr.printf("%s [y/N] ", question)
	line, err := bufio.NewReader(a.stdin).ReadString('\n')
	if err != nil {
		return fmt.Errorf("no answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return &api.Error{Code: api.CodeInvalid, Message: "nothing was done"}
}
