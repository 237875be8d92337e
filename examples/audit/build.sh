#!/bin/sh
# Builds the audit into five source folders for `stella bundle pack`:
#
#     build.sh OUT [ADVISORIES]
#
# makes OUT/inventory, OUT/match, OUT/report, OUT/advisories and OUT/dag.
# ADVISORIES is a folder of OSV records, one in each .json file, such as
# data/convert writes; the default is data/advisories here. It needs Go and a
# warm module cache, no network, and gives the same bytes each time.
set -eu

if [ $# -lt 1 ] || [ $# -gt 2 ]; then
	echo "usage: build.sh OUT [ADVISORIES]" >&2
	exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
advisories=${2:-$here/data/advisories}
if [ ! -d "$advisories" ] || [ -z "$(find "$advisories" -name '*.json' -print -quit)" ]; then
	echo "build.sh: no advisories in $advisories: data/SOURCES.md says how to get some" >&2
	exit 1
fi
advisories=$(cd "$advisories" && pwd)
if [ -e "$1" ] && [ -n "$(ls -A "$1")" ]; then
	echo "build.sh: $1 is not empty" >&2
	exit 1
fi
mkdir -p "$1"
out=$(cd "$1" && pwd)

# Nothing of the caller's environment may change the bytes.
export CGO_ENABLED=0 GOFLAGS= GOWORK=off GOTOOLCHAIN=local GOPROXY=off GOEXPERIMENT= GOAMD64=v1 GOWASM=

build() { # PLUGIN OS ARCH FILE
	mkdir -p "$out/$1/bin" "$out/$1/schema"
	(cd "$here" && GOOS=$2 GOARCH=$3 go build -trimpath -buildvcs=false -ldflags='-s -w' -o "$out/$1/bin/$4" "./plugins/$1")
	cp "$here/plugins/$1/stella.toml" "$out/$1/"
	cp "$here/plugins/$1/schema/"*.json "$out/$1/schema/"
}

build inventory linux amd64 inventory
build match wasip1 wasm match.wasm
build report wasip1 wasm report.wasm

mkdir "$out/dag"
cp "$here/dag/stella.toml" "$here/dag/dag.toml" "$out/dag/"

mkdir -p "$out/advisories/records"
cp "$here/data/advisories/stella.toml" "$here/data/SOURCES.md" "$out/advisories/"
find "$advisories" -name '*.json' -exec cp {} "$out/advisories/records/" \;

# Modes go into a manifest, so they must not hang on the umask.
find "$out" -type d -exec chmod 0755 {} +
find "$out" -type f -exec chmod 0644 {} +
chmod 0755 "$out/inventory/bin/inventory"
