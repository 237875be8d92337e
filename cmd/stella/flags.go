package main

import (
	"slices"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/stellarun/stella/server/api"
)

// notEmpty refuses a flag that was given and says nothing. Left out it has a
// meaning of its own, often a weaker demand, which must be chosen and not come
// from a variable that was unset.
func notEmpty(c *cobra.Command) error {
	var first error
	c.Flags().Visit(func(f *pflag.Flag) {
		if first == nil && empty(f.Value) {
			first = &api.Error{Code: api.CodeInvalid, Message: "--" + f.Name + " is given, and empty",
				Hint: "leave it out, or give it a value; a variable of a script may be unset"}
		}
	})
	return first
}

func empty(v pflag.Value) bool {
	list, ok := v.(pflag.SliceValue)
	switch {
	case !ok:
		return v.String() == ""
	case v.Type() == "stringArray":
		return slices.Contains(list.GetSlice(), "")
	}
	return len(list.GetSlice()) == 0 // in a list with commas "" is an element: of names, every one
}

// adds refuses numbers and switches that ask trust add for less, which it would
// not do.
func adds(c *cobra.Command) error {
	const hint = "it adds to the policy; stella trust add --policy FILE takes a whole policy, which may demand less"
	for _, name := range []string{"threshold", "require-tlog", "require-timestamps", "require-sct"} {
		f := c.Flags().Lookup(name)
		if n, err := strconv.Atoi(f.Value.String()); f.Changed && (err != nil || n < 1) {
			return &api.Error{Code: api.CodeInvalid, Message: "--" + name + " is 1 or more, not " + f.Value.String(), Hint: hint}
		}
	}
	if f := c.Flags().Lookup("require-audience"); f.Changed && f.Value.String() == "false" {
		return &api.Error{Code: api.CodeInvalid, Message: "--require-audience adds a demand, and takes none back", Hint: hint}
	}
	return nil
}
