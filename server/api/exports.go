package api

// ExportRequest asks for the archive of a half-open window of recorded time.
// From empty means the first entry; To empty means the newest closed instant.
type ExportRequest struct {
	From  string `json:"from,omitempty"`
	To    string `json:"to,omitempty"`
	Path  string `json:"path"`            // file to write
	Force bool   `json:"force,omitempty"` // replace it

	EncryptTo []string `json:"encryptTo,omitempty"` // public keys of age: it becomes PATH.age
	Mode      uint32   `json:"mode,omitempty"`      // permissions of the files, none but 0666; 0 is what the umask of the site's process leaves of these
	PartBytes int64    `json:"partBytes,omitempty"` // it becomes PATH.001 and so on, none larger, and PATH.sha256
}

// ExportResult is an archive that was written.
type ExportResult struct {
	Seq      int64  `json:"seq"` // of the entry
	Path     string `json:"path,omitempty"`
	From     string `json:"from"`
	To       string `json:"to"`
	FirstSeq int64  `json:"firstSeq"`
	Count    int64  `json:"count"`
	TreeSize int64  `json:"treeSize"`
	Root     string `json:"root"`
	SHA256   string `json:"sha256"`
	Bytes    int64  `json:"bytes,omitempty"`
	Withheld int64  `json:"withheld"`

	Away        []AwayArchive `json:"away,omitempty"`        // archives of runs that are not here: why some of it is withheld
	EncryptedTo []string      `json:"encryptedTo,omitempty"` // SHA256 and Bytes are those of the archive in it
	Parts       []ExportPart  `json:"parts,omitempty"`
}

// ExportPart is one of the parts that an archive was written in.
type ExportPart struct {
	Path   string `json:"path"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}
