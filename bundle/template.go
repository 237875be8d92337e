package bundle

import (
	"embed"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/stellarun/stella/internal/stamp"
	"github.com/stellarun/stella/manifests"
)

//go:embed templates
var templates embed.FS

// Template is what a new source folder begins with. All fields are required;
// Runtime for kind plugin only.
type Template struct {
	Kind      manifests.Kind // plugin, dag or data
	Runtime   manifests.Runtime
	Publisher string
	Name      string
	Created   time.Time
}

// SourceFile is one file of a source folder.
type SourceFile struct {
	Path string // slash-separated
	Mode fs.FileMode
	Data []byte
}

// Files are the files of a source folder that packs, and runs, as it is.
func (t Template) Files() ([]SourceFile, error) {
	dir := "templates/" + string(t.Kind)
	if t.Kind == manifests.KindPlugin {
		dir += "-" + string(t.Runtime)
	}
	if !manifests.ValidName(t.Publisher) || !manifests.ValidName(t.Name) {
		return nil, fmt.Errorf("bundle: template: %q and %q must be names: a-z, 0-9, . and -", t.Publisher, t.Name)
	}
	fill := strings.NewReplacer("{{publisher}}", t.Publisher, "{{name}}", t.Name, "{{created}}", stamp.Format(t.Created))
	var files []SourceFile
	err := fs.WalkDir(templates, dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := templates.ReadFile(name)
		if err != nil {
			return err
		}
		f := SourceFile{Path: strings.TrimSuffix(strings.TrimPrefix(name, dir+"/"), ".txt"), Mode: 0o644, Data: raw}
		if strings.HasPrefix(f.Path, "bin/") {
			f.Mode = 0o755
		}
		if !strings.HasSuffix(f.Path, ".wasm") {
			f.Data = []byte(fill.Replace(string(raw)))
		}
		files = append(files, f)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("bundle: there is no template for kind %s%s: %w", t.Kind, strings.TrimPrefix(dir, "templates/"+string(t.Kind)), err)
	}
	return files, nil
}
