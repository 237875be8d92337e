package sandbox

import (
	"context"
	"os"
	"path"

	"github.com/stellarun/stella/internal/fsx"
	"github.com/stellarun/stella/runner"
)

// hand writes the secrets of a task. In this tier they lie on the disk of the
// workspace: whoever runs programs as the same user can read them meanwhile.
func (p *prepared) hand(root *os.Root, secrets []runner.SecretFile) error {
	for _, s := range secrets {
		f, err := root.OpenFile(path.Join(secretsDir, s.Name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o400)
		if err != nil {
			return err
		}
		p.secrets = append(p.secrets, f)
		if _, err := f.Write(s.Value); err != nil {
			return err
		}
	}
	return nil
}

// wipe overwrites the files, wherever the program has moved them, and removes the
// folder. What fails is left to whoever removes the workspace.
func (p *prepared) wipe() {
	if p.secrets == nil {
		return
	}
	for _, f := range p.secrets {
		fsx.Zero(f)
		f.Close()
	}
	p.secrets = nil
	root, err := os.OpenRoot(p.dir)
	if err != nil {
		return
	}
	defer root.Close()
	fsx.RemoveTree(context.Background(), root, secretsDir)
}
