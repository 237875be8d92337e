package server

import (
	"bytes"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/stellarun/stella/server/api"
)

// LocalPrincipal is the actor of a process with this uid on this machine:
// uid:N(name), or uid:N where the name is unknown or not plain.
func LocalPrincipal(uid int) string {
	id := strconv.Itoa(uid)
	u, err := user.LookupId(id)
	if err != nil || !plainName(u.Username) {
		return "uid:" + id
	}
	return "uid:" + id + "(" + u.Username + ")"
}

// plainName says whether a user's name can stand in a ledger entry.
func plainName(s string) bool {
	if s == "" || len(s) > 32 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-', c == '.':
		default:
			return false
		}
	}
	return true
}

// A peer is the process at the other end of a connection, as the kernel saw it
// when it connected.
type peer struct {
	uid, pid  int
	principal string
	admit     func() error // nil if it may speak; decided once
}

// peerKey is where net/http carries the peer of a connection to its requests.
type peerKey struct{}

func withPeer(ctx context.Context, c net.Conn, opt *Options) context.Context {
	cred, err := credentials(c)
	if err != nil {
		return ctx // requests without a peer are refused
	}
	p := peer{uid: int(cred.Uid), pid: int(cred.Pid), principal: LocalPrincipal(int(cred.Uid))}
	p.admit = sync.OnceValue(func() error { return admitPeer(p, opt.Owner, opt.self) })
	return context.WithValue(ctx, peerKey{}, p)
}

// credentials asks the kernel who is at the other end of a Unix connection.
func credentials(c net.Conn) (*syscall.Ucred, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.New("server: not a Unix connection")
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("server: peer credentials: %w", err)
	}
	var cred *syscall.Ucred
	var sysErr error
	err = raw.Control(func(fd uintptr) {
		cred, sysErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err == nil {
		err = sysErr
	}
	if err != nil {
		return nil, fmt.Errorf("server: peer credentials: %w", err)
	}
	return cred, nil
}

// admitPeer refuses whoever is neither the site's owner nor root, and any
// process that lives inside an attempt: those descend from us. The second check
// only matters for processes with our own uid, since an attempt can have no
// other that passes the first.
func admitPeer(p peer, owner, self int) error {
	if p.uid != owner && p.uid != 0 {
		return &api.Error{
			Code:    api.CodeForbidden,
			Message: fmt.Sprintf("%s is neither the owner of this site (uid %d) nor root", p.principal, owner),
		}
	}
	if p.uid != os.Geteuid() {
		return nil
	}
	inside, err := descends(p.pid, self)
	if err != nil {
		return &api.Error{Code: api.CodeForbidden, Message: "the process that asks cannot be identified: " + err.Error()}
	}
	if inside {
		return &api.Error{Code: api.CodeForbidden, Message: "a step may not speak to the site that runs it"}
	}
	return nil
}

// descends says whether ancestor is above pid in the tree of processes. A pid
// of 0 lies outside our pid namespace, hence not below us.
func descends(pid, ancestor int) (bool, error) {
	if pid == ancestor {
		return false, nil
	}
	for hops := 0; pid > 1; hops++ {
		if hops > 4096 {
			return false, errors.New("endless chain of parents")
		}
		next, err := parent(pid)
		if err != nil {
			return false, err
		}
		if next == ancestor {
			return true, nil
		}
		pid = next
	}
	return false, nil
}

// parent reads the parent of a process from /proc/PID/stat. The name in the
// second field may hold anything, so the fields are counted from its end.
func parent(pid int) (int, error) {
	name := "/proc/" + strconv.Itoa(pid) + "/stat"
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	i := bytes.LastIndexByte(b, ')')
	fields := strings.Fields(string(b[i+1:]))
	if i < 0 || len(fields) < 2 {
		return 0, fmt.Errorf("%s: unknown form", name)
	}
	return strconv.Atoi(fields[1])
}

func trimCookie(c []byte) []byte { return bytes.TrimSpace(c) }

func sameCookie(got string, want []byte) bool {
	return subtle.ConstantTimeCompare([]byte(got), trimCookie(want)) == 1
}
