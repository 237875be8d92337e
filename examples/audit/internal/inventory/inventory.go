// Package inventory turns what was found on a machine into bills of materials:
// Go programs with what is linked into them, and Debian packages. It reads no
// file itself.
package inventory

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/stellarun/stella/examples/audit/internal/cyclonedx"
)

// Version is the version of the inventory, which its bundle and its bills name.
const Version = "1.0.0"

// maxPaths is how many paths are listed for one part.
const maxPaths = 100

// subjectRef is the bom-ref of what a bill is about.
const subjectRef = "subject"

// Origin is what a bill says of itself.
type Origin struct {
	Subject   string // name of the machine that was looked at; "" is "machine"
	Timestamp string // RFC 3339
}

func newBOM(o Origin) cyclonedx.BOM {
	name := o.Subject
	if name == "" {
		name = "machine"
	}
	return cyclonedx.BOM{
		Timestamp: o.Timestamp,
		Tool: cyclonedx.Component{
			Type: cyclonedx.TypeApplication, Publisher: "acme", Name: "audit-inventory", Version: Version,
		},
		Subject:      cyclonedx.Component{Type: cyclonedx.TypeDevice, Ref: subjectRef, Name: printable(name)},
		Dependencies: map[string][]string{},
	}
}

// printable returns s, which may come from a file name, as text that two
// different names never share: JSON has no way to write bytes that are not
// UTF-8.
func printable(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	q := strconv.QuoteToASCII(s)
	return q[1 : len(q)-1]
}

// pathProperties lists paths, which are sorted.
func pathProperties(paths []string) []cyclonedx.Property {
	var out []cyclonedx.Property
	for _, p := range paths[:min(len(paths), maxPaths)] {
		out = append(out, cyclonedx.Property{Name: cyclonedx.PropPath, Value: printable(p)})
	}
	if n := len(paths) - maxPaths; n > 0 {
		out = append(out, cyclonedx.Property{Name: cyclonedx.PropPathsOmitted, Value: fmt.Sprint(n)})
	}
	return out
}

// goPURL names a Go module. The specification has such names in lower case;
// the component's name keeps what the module calls itself.
func goPURL(path, version string) string {
	if version == "" {
		return ""
	}
	p := cyclonedx.PURL{Type: "golang", Name: strings.ToLower(path), Version: version}
	if i := strings.LastIndexByte(p.Name, '/'); i >= 0 {
		p.Namespace, p.Name = p.Name[:i], p.Name[i+1:]
	}
	return p.String()
}
