#!/bin/sh
# Builds stella twice, in different places and with an empty build cache the
# second time if REPRO_COLD is set, and compares the bytes.
set -eu
a=$(mktemp -d)
trap 'rm -rf "$a"' EXIT
make -s build
cp bin/stella "$a/first"
cp bin/stella-audit "$a/first-audit"
mkdir "$a/src"
git ls-files -z | tar --null -T - -cf - | tar -xf - -C "$a/src"
if [ -n "${REPRO_COLD:-}" ]; then
	GOCACHE="$a/cache"
	export GOCACHE
fi
(cd "$a/src" && make -s build COMMIT="$(git -C "$OLDPWD" rev-parse HEAD)" DIRTY="$(git -C "$OLDPWD" diff --quiet HEAD || echo +dirty)")
cmp "$a/first" "$a/src/bin/stella"
cmp "$a/first-audit" "$a/src/bin/stella-audit"
echo "reproducible: two builds, same bytes ($(sha256sum <"$a/first" | cut -c1-16)…)"
if command -v file >/dev/null 2>&1; then
	for b in bin/stella bin/stella-audit; do
		file "$b" | grep -q 'statically linked' || { echo "$b is not static" >&2; exit 1; }
	done
fi
