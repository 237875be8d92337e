package export

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"filippo.io/age"
)

// EncryptedSuffix is what the name of an encrypted archive ends with.
const EncryptedSuffix = ".age"

// MaxRecipients bounds to how many keys one archive is encrypted.
const MaxRecipients = 100

// Why an encrypted archive was not read. They come wrapped.
var (
	ErrEncrypted  = errors.New("it is encrypted")
	ErrNoIdentity = errors.New("it is encrypted to other keys")
	ErrIdentity   = errors.New("no age identity")
	ErrRecipient  = errors.New("no age recipient")
	ErrCiphertext = errors.New("it is encrypted, and damaged")
)

// Recipients reads public keys of age, each in the form age1…. What is empty, or
// begins with #, is passed over, as in files of recipients.
func Recipients(lines []string) ([]string, error) {
	var out []string
	for i, line := range lines {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		// The key itself is not repeated: who mixes the two kinds up has given a secret.
		if r, err := age.ParseRecipients(strings.NewReader(line)); err != nil || len(r) != 1 {
			return nil, fmt.Errorf("%w: number %d is not a public key of the form age1…", ErrRecipient, i+1)
		}
		out = append(out, line)
	}
	if len(out) > MaxRecipients {
		return nil, fmt.Errorf("%w: %d, at most %d are taken", ErrRecipient, len(out), MaxRecipients)
	}
	return out, nil
}

// Encrypt encrypts what is written to the result, as age does, for each of the
// recipients alone, and writes it to w. It is whole once the result was closed, which
// does not close w.
func Encrypt(w io.Writer, recipients []string) (io.WriteCloser, error) {
	keys, err := age.ParseRecipients(strings.NewReader(strings.Join(recipients, "\n")))
	if err != nil {
		return nil, fmt.Errorf("export: %w: %v", ErrRecipient, err)
	}
	out, err := age.Encrypt(w, keys...)
	if err != nil {
		return nil, fmt.Errorf("export: %w: %v", ErrRecipient, err)
	}
	return out, nil
}

const (
	ageIntro = "age-encryption.org/v1\n"
	ageArmor = "-----BEGIN AGE ENCRYPTED FILE-----"
)

// decrypted is the plaintext of m if it is encrypted, else m. Nothing of it is written
// anywhere: age decrypts a piece of 64 KiB when it is asked for. It bounds the header.
func decrypted(m *medium, identity []byte) (*medium, error) {
	head := make([]byte, min(m.size, int64(len(ageArmor))))
	if _, err := m.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("export: %w", err)
	}
	switch {
	case bytes.HasPrefix(head, []byte(ageArmor)):
		return nil, fmt.Errorf("export: %w, in text form", ErrEncrypted)
	case !bytes.HasPrefix(head, []byte(ageIntro)):
		return m, nil
	case identity == nil:
		return nil, fmt.Errorf("export: %w", ErrEncrypted)
	}
	keys, err := age.ParseIdentities(bytes.NewReader(identity))
	if err != nil {
		return nil, fmt.Errorf("export: %w: a file with AGE-SECRET-KEY-1… is wanted", ErrIdentity)
	}
	plain, size, err := age.DecryptReaderAt(m, m.size, keys...)
	var other *age.NoIdentityMatchError
	if errors.As(err, &other) {
		return nil, fmt.Errorf("export: %w than those of the identity", ErrNoIdentity)
	}
	if err != nil {
		return nil, fmt.Errorf("export: %w: %v", ErrCiphertext, err)
	}
	return &medium{ReaderAt: plaintext{plain}, size: size, files: m.files}, nil
}

// plaintext tells damage from faults of the disk.
type plaintext struct{ io.ReaderAt }

func (p plaintext) ReadAt(b []byte, at int64) (int, error) {
	n, err := p.ReaderAt.ReadAt(b, at)
	var disk *fs.PathError
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, errChanged) && !errors.As(err, &disk) {
		err = fmt.Errorf("export: %w: %v", ErrCiphertext, err)
	}
	return n, err
}
