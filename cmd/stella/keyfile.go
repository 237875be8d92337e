package main

import (
	"bytes"
	"crypto/ecdsa"
	"os"

	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/server/api"
	"github.com/stellarun/stella/verify"
)

// publicKey reads the file of a public key. What is none goes no further, least
// of all a private key that was named by mistake.
func publicKey(path string) ([]byte, error) {
	raw, err := fsx.ReadFile(path, maxKeyFile)
	if err != nil {
		return nil, fileError(path, err)
	}
	if _, err := verify.ParsePublicKey(raw); err != nil {
		hint := keygenHint
		if bytes.Contains(raw, []byte("PRIVATE KEY-----")) {
			hint = "stella bundle keygen wrote its public half to FILE.pub; openssl pkey -in FILE -pubout prints that of any key"
		}
		return nil, keyError(path, raw, err, hint)
	}
	return raw, nil
}

// privateKey reads the file of a private key, and warns if others can read it.
func (a *app) privateKey(path string) (*ecdsa.PrivateKey, error) {
	raw, err := fsx.ReadFile(path, maxKeyFile)
	if err != nil {
		return nil, fileError(path, err)
	}
	key, err := verify.ParsePrivateKey(raw)
	if err != nil {
		hint := keygenHint
		if bytes.Contains(raw, []byte("PRIVATE KEY-----")) {
			hint = "openssl pkcs8 -topk8 -nodes -in FILE writes PKCS#8 without a password"
		}
		return nil, keyError(path, raw, err, hint)
	}
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o044 != 0 {
		a.stderr.note("note: others can read the private key %s (its mode is %s); keep it to yourself: chmod 600 %s",
			path, info.Mode().Perm().String(), quote(path))
	}
	return key, nil
}

const keygenHint = "stella bundle keygen makes keys: FILE is private, FILE.pub public"

// keyError is a file that is not the key that is wanted.
func keyError(path string, raw []byte, err error, hint string) error {
	e := &api.Error{Code: api.CodeInvalid, Message: path + ": " + err.Error(), Hint: hint}
	if len(raw) == 0 {
		e.Message = path + " is empty"
	}
	return e
}
