#!/bin/sh
# Fetches the changelogs that `convert -changelogs` reads, on a Debian machine:
#
#     changelogs.sh DIR
#
# makes DIR/SOURCE.gz for each line of changelogs.txt: the changelog in the
# newest version of the package that apt knows of. Run `apt-get update` before.
set -eu

if [ $# -ne 1 ]; then
	echo "usage: changelogs.sh DIR" >&2
	exit 2
fi
list=$(cd "$(dirname "$0")" && pwd)/changelogs.txt
if [ -e "$1" ] && [ -n "$(ls -A "$1")" ]; then
	echo "changelogs.sh: $1 is not empty" >&2
	exit 1
fi
mkdir -p "$1"
out=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# Word splitting is meant: one argument for each package.
# shellcheck disable=SC2046
apt-get -qq download $(sed '/^#/d; s/.* //' "$list")

while read -r source binary; do
	case $source in '' | '#'*) continue ;; esac
	for name in changelog.Debian.gz changelog.gz; do # native packages have the second
		dpkg-deb --fsys-tarfile "$binary"_*.deb | tar -xO "./usr/share/doc/$binary/$name" >"$out/$source.gz" 2>"$work/log" && break
		rm "$out/$source.gz"
	done
	if [ ! -s "$out/$source.gz" ]; then
		echo "changelogs.sh: $binary has no changelog" >&2
		exit 1
	fi
done <"$list"
