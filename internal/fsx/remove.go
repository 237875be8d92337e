package fsx

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"syscall"
)

// Measure limits: what a hostile tree can make somebody spend who only looks.
const (
	measureDepth = 64
	measureBatch = 512
)

// A Size is what lies in a tree. Partial says that it holds more than was
// counted.
type Size struct {
	Files   int64 // of every kind but folders
	Bytes   int64 // of regular files, as long as they claim to be
	Partial bool
}

// RemoveTree removes name below root: a file, a link itself, or a folder with
// everything in it. It follows no link, leaves root never, and works whatever
// the modes, the depth and the number of files: folders inside are moved up and
// emptied one at a time. What it cannot remove lies in a folder of root whose
// name is [IsTemp] afterwards, as after a crash. A name that is not there is
// no error.
func RemoveTree(ctx context.Context, root *os.Root, name string) (Size, error) {
	r := remover{ctx: ctx}
	fi, err := root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return r.size, nil
	case err != nil:
		return r.size, err
	case !fi.IsDir():
		r.count(fi)
		return r.size, root.Remove(name)
	}
	bin := name
	if !IsTemp(name) { // else it is one that an earlier removal has left
		var id [6]byte
		rand.Read(id[:])
		bin = tempPrefix + hex.EncodeToString(id[:]) + tempSuffix
		if err := root.Mkdir(bin, 0o700); err != nil {
			return r.size, err
		}
		open(root, name)
		if err := root.Rename(name, path.Join(bin, "0")); err != nil {
			return r.size, errors.Join(err, root.Remove(bin))
		}
	}
	open(root, bin)
	if r.bin, err = root.OpenRoot(bin); err != nil {
		return r.size, err
	}
	err = errors.Join(r.empty(), r.bin.Close())
	if err == nil {
		err = root.Remove(bin)
	}
	return r.size, err
}

// open makes a folder one that its owner can read and change. An error shows at
// the next step.
func open(root *os.Root, name string) { _ = root.Chmod(name, 0o700) }

// A remover empties a folder of its own, the bin. Paths in it have at most two
// parts, so that the depth of what was moved into it costs nothing.
type remover struct {
	ctx  context.Context // of one call
	bin  *os.Root
	next int // name of the next folder that is moved up
	size Size
}

func (r *remover) count(fi fs.FileInfo) {
	r.size.Files++
	if fi.Mode().IsRegular() {
		r.size.Bytes += fi.Size()
	}
}

// empty empties the bin. Each round takes away the folders that are there, and
// leaves those that were inside them.
func (r *remover) empty() error {
	for {
		names, err := r.list(".")
		if err != nil || len(names) == 0 {
			return err
		}
		for _, name := range names {
			if err := r.folder(name); err != nil {
				return err
			}
		}
	}
}

// list reads some names of a folder of the bin.
func (r *remover) list(name string) ([]string, error) {
	if err := r.ctx.Err(); err != nil {
		return nil, err
	}
	d, err := r.bin.OpenFile(name, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(measureBatch)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return names, err
}

// folder removes one thing of the bin; of a folder, what is inside it before.
func (r *remover) folder(name string) error {
	fi, err := r.bin.Lstat(name)
	if err != nil {
		return err
	}
	if !fi.IsDir() {
		r.count(fi)
		return r.bin.Remove(name)
	}
	open(r.bin, name)
	for {
		inside, err := r.list(name)
		if err != nil {
			return err
		}
		if len(inside) == 0 {
			return r.bin.Remove(name)
		}
		for _, n := range inside {
			if err := r.inside(path.Join(name, n)); err != nil {
				return err
			}
		}
	}
}

// inside removes a thing inside a folder of the bin, or moves it up if it is a
// folder with something in it.
func (r *remover) inside(name string) error {
	fi, err := r.bin.Lstat(name)
	if err != nil {
		return err
	}
	if !fi.IsDir() {
		r.count(fi)
		return r.bin.Remove(name)
	}
	if r.bin.Remove(name) == nil {
		return nil
	}
	open(r.bin, name) // moving a folder writes to it
	for {
		r.next++
		to := "m" + strconv.Itoa(r.next)
		if _, err := r.bin.Lstat(to); errors.Is(err, fs.ErrNotExist) {
			return r.bin.Rename(name, to)
		}
	}
}

// Measure counts what lies below name, without following links, up to a number
// of files and a depth. What cannot be read is not counted, and makes the size
// partial.
func Measure(ctx context.Context, root *os.Root, name string, files int64) (Size, error) {
	var s Size
	fi, err := root.Lstat(name)
	if err != nil {
		return s, err
	}
	type folder struct {
		name  string
		depth int
	}
	todo := []folder{}
	add := func(name string, depth int, fi fs.FileInfo) {
		switch {
		case fi.IsDir() && depth < measureDepth:
			todo = append(todo, folder{name, depth})
		case fi.IsDir():
			s.Partial = true
		default:
			s.Files++
			if fi.Mode().IsRegular() {
				s.Bytes += fi.Size()
			}
		}
	}
	add(name, 0, fi)
	looked := int64(0)
	for len(todo) > 0 {
		f := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if err := ctx.Err(); err != nil {
			return s, err
		}
		err := eachName(root, f.name, func(n string) error {
			if looked++; looked > files {
				return errEnough
			}
			fi, err := root.Lstat(path.Join(f.name, n))
			if err != nil {
				s.Partial = true
				return nil
			}
			add(path.Join(f.name, n), f.depth+1, fi)
			return nil
		})
		if s.Partial = s.Partial || err != nil; errors.Is(err, errEnough) {
			return s, nil
		}
	}
	return s, nil
}

var errEnough = fmt.Errorf("fsx: enough was counted")

func eachName(root *os.Root, name string, f func(string) error) error {
	d, err := root.OpenFile(name, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer d.Close()
	for {
		names, err := d.Readdirnames(measureBatch)
		for _, n := range names {
			if err := f(n); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
