package ledger

// SecretChange is the data of [SecretSet] and [SecretRotated]: there is a new
// version of a secret. Nothing of it tells the value, its length or its hash.
type SecretChange struct {
	Name    string `json:"name"`
	Version int64  `json:"version"` // from 1; never used again
	File    string `json:"file"`    // SHA-256 of the encrypted file
	Reason  string `json:"reason,omitempty" erase:"text"`
}

// SecretRemoval is the data of [SecretRemoved].
type SecretRemoval struct {
	Name    string `json:"name"`
	Version int64  `json:"version"`
	File    string `json:"file"` // SHA-256 of the encrypted file that is no more
	Reason  string `json:"reason,omitempty" erase:"text"`
}

// SecretUse is a version of a secret that an attempt was given.
type SecretUse struct {
	Name    string `json:"name"`
	Version int64  `json:"version"`
}
