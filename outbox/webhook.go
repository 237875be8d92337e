package outbox

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/manifests"
)

// Headers of a delivery. Receivers rely on them: never change or reuse one.
const (
	HeaderSignature = "Stella-Signature" // t=UNIX,v1=HEX
	HeaderEventID   = "Stella-Event-Id"
	headerOnce      = "Idempotency-Key" // the same; it also lets net/http use a connection that died idle once more
)

// Bounds of a secret file and of what is read of an answer.
const (
	minSecret  = 32
	maxSecret  = 4 << 10
	maxIgnored = 4 << 10
)

// webhook posts each event, signed. It follows no redirect and uses no proxy: what
// leaves a site goes where its operator said.
type webhook struct {
	url, secret string // the latter is a path: a key may be replaced while we run
	timeout     time.Duration
	client      *http.Client
	now         func() time.Time
}

func newWebhook(s manifests.Sink, secret string, now func() time.Time) *webhook {
	dialer := &net.Dialer{Timeout: s.Timeout}
	if u, err := url.Parse(s.URL); err == nil && u.Scheme == "http" && !s.PlainHTTP {
		dialer.Control = loopbackOnly // whatever localhost may be taken for
	}
	return &webhook{
		url: s.URL, secret: secret, timeout: s.Timeout, now: now,
		client: &http.Client{
			Transport: &http.Transport{
				DialContext: dialer.DialContext, TLSHandshakeTimeout: s.Timeout, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
				ForceAttemptHTTP2: true, DisableCompression: true, MaxIdleConns: 1, IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: 64 << 10,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// loopbackOnly refuses to connect to another machine.
func loopbackOnly(_, address string, _ syscall.RawConn) error {
	addr, err := netip.ParseAddrPort(address)
	if err != nil || !addr.Addr().IsLoopback() {
		return fmt.Errorf("plain http to %s, which is not this machine", address)
	}
	return nil
}

func (t *webhook) close() { t.client.CloseIdleConnections() }

func (t *webhook) deliver(ctx context.Context, events []Event) (int, error) {
	key, err := readSecret(t.secret)
	if err != nil {
		return 0, err
	}
	for n, e := range events {
		if err := t.post(ctx, key, e); err != nil {
			return n, err
		}
	}
	return len(events), nil
}

func (t *webhook) post(ctx context.Context, key []byte, e Event) error {
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url, bytes.NewReader(e.Body))
	if err != nil {
		return errors.New("the URL cannot be used")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "stella")
	req.Header.Set(HeaderEventID, e.ID)
	req.Header.Set(headerOnce, e.ID)
	req.Header.Set(HeaderSignature, Sign(key, t.now(), e.Body))
	res, err := t.client.Do(req)
	if err != nil {
		return t.silent(ctx, err)
	}
	defer res.Body.Close()
	_, _ = io.CopyN(io.Discard, res.Body, maxIgnored) // so that the connection can be used again; the status is the answer
	switch code := res.StatusCode; {
	case code >= 200 && code <= 299:
		return nil
	case later(res):
		return fmt.Errorf("status %d", code)
	default:
		return &refusal{fmt.Sprintf("status %d", code)}
	}
}

// later says whether an answer is not about the event: the receiver, or what stands
// before it, cannot take any now.
func later(res *http.Response) bool {
	switch res.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return res.StatusCode >= 500 && res.Header.Get("Retry-After") != ""
}

// silent says that no answer came, and why, without the URL: that may hold what
// not everybody is to read.
func (t *webhook) silent(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("no answer in %s", t.timeout)
	}
	var named *url.Error
	if errors.As(err, &named) {
		return named.Err
	}
	return err
}

// Sign is the value of [HeaderSignature] for a body that is sent at a time.
func Sign(key []byte, at time.Time, body []byte) string {
	t := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(t + "."))
	mac.Write(body)
	return "t=" + t + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}

// readSecret reads the key of a signature: the bytes of a file that nobody else
// can read, without a line feed at the end.
func readSecret(path string) ([]byte, error) {
	f, err := fsx.OpenRegular(path)
	if err != nil {
		return nil, fmt.Errorf("secret_file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("secret_file: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("secret_file: %s can be read or written by others (mode %04o): chmod 600", path, mode)
	}
	if uid := int(info.Sys().(*syscall.Stat_t).Uid); uid != os.Geteuid() && uid != 0 {
		return nil, fmt.Errorf("secret_file: %s belongs to user %d", path, uid)
	}
	key, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return nil, fmt.Errorf("secret_file: %w", err)
	}
	key = bytes.TrimRight(key, "\r\n")
	if len(key) < minSecret || len(key) > maxSecret {
		return nil, fmt.Errorf("secret_file: %s holds %d bytes, and %d to %d are wanted", path, len(key), minSecret, maxSecret)
	}
	return key, nil
}
