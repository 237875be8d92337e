package ledger

import (
	"errors"
	"fmt"
)

// Why something is refused. They come wrapped.
var (
	ErrTooLarge        = errors.New("too large")                       // a line, note or proof beyond its limit
	ErrUnknownType     = errors.New("unknown type or version")         // of an entry; a newer stella may know it
	ErrMismatch        = errors.New("data line of another envelope")   // digest or seq differ
	ErrProof           = errors.New("proof does not lead to the root") // inclusion, consistency or window
	ErrUnauthenticated = errors.New("not signed by this site's key")   // checkpoint of another key or site
	ErrCosigned        = errors.New("cosigned already")                // by this witness
	ErrCosignature     = errors.New("the cosignature does not verify") // of a witness that was asked about
	ErrInsideSubtree   = errors.New("size lies inside a subtree")      // only a consistency proof can tell its root
)

var errFields = errors.New("fields are missing, or are not in the schema")

// A FormError says which bytes are not in their one accepted form.
type FormError struct {
	What string // envelope, data line, checkpoint, ...
	Err  error
}

func (e *FormError) Error() string { return fmt.Sprintf("ledger: %s: %v", e.What, e.Err) }

func (e *FormError) Unwrap() error { return e.Err }

// malformed is a *FormError with a problem of our own words.
func malformed(what, format string, args ...any) error {
	return &FormError{What: what, Err: fmt.Errorf(format, args...)}
}
