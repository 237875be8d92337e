// Package plugin is what the author of a stella plugin in Go imports: the
// request that a step receives, and the lines that it answers with. It uses
// the standard library only and compiles for linux and for GOOS=wasip1, where
// it behaves alike.
//
//	func main() {
//		plugin.Main(func(ctx context.Context, c *plugin.Call) error {
//			var p struct {
//				Greeting string `json:"greeting"`
//			}
//			if err := c.Params(&p); err != nil {
//				return err
//			}
//			return c.Output("text", p.Greeting+", world")
//		})
//	}
//
// A plugin is one process for one attempt of one step. It reads its request,
// works in its own folder, says what came out, and ends. It cannot be talked to
// meanwhile; SIGTERM cancels ctx, and SIGKILL follows after a grace.
//
// # The protocol, for other languages
//
// The request is one JSON object, a [Request], on stdin and in the file
// $STELLA_INPUT. Paths in it are relative to the attempt's folder, which is the
// parent of $STELLA_WORKSPACE: "inputs/…" is $STELLA_WORKSPACE/../inputs/….
// The other STELLA_ variables hold absolute paths as the program sees them. A
// native program starts in $STELLA_WORKSPACE; a WebAssembly guest has its root
// there, since it has no working directory of its own.
//
// Results are appended to the file $STELLA_OUTPUT, one JSON object and a line
// feed each:
//
//	{"output":{"KEY":VALUE,…}}
//	{"artifact":{"name":NAME,"path":PATH,"mediaType":TYPE}}
//	{"progress":FRACTION,"message":TEXT}
//	{"error":{"code":CODE,"message":TEXT,"retryable":BOOL,"retryAfterMs":N}}
//
// A key is given once, over all lines. NAME and PATH are slash-separated and
// made of [A-Za-z0-9._+@/-]; PATH is relative to $STELLA_ARTIFACTS and equal to
// NAME when absent. FRACTION lies between 0 and 1, N between 0 and 86400000, a
// day. Anything else breaks the
// contract, and the results are discarded whole; so is a file that replaces the
// one that was there. A last line without a line feed is dropped. The limits
// are the constants below. What is written to stdout and stderr is a log and
// never parsed.
//
// Exit codes: 0 success; [ExitRejected] the parameters are refused, never to be
// tried again; [ExitRetryable] may work later; any other is a failure.
//
// # Compatibility
//
// The API number is [API]. Within it, requests and lines may gain fields and
// nothing else changes; a plugin ignores request fields that it does not know.
package plugin

// API is the version of the protocol: $STELLA_API and the api field.
const API = 1

// Limits of $STELLA_OUTPUT. More is a failure of the attempt.
const (
	MaxOutput    = 1 << 20  // bytes of the file
	MaxValue     = 64 << 10 // bytes of one output value, in canonical form (RFC 8785)
	MaxKeys      = 256      // output keys
	MaxArtifacts = 256
	MaxMessage   = 4 << 10 // bytes of a message
)

// Exit codes with a meaning of their own (sysexits.h: EX_DATAERR, EX_TEMPFAIL).
const (
	ExitFailed    = 1
	ExitRejected  = 65
	ExitRetryable = 75
)
