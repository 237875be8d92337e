#!/bin/sh
# Runs every fuzz target for the given time: scripts/fuzz.sh 30s
#
# When the time is up in the middle of an input, the fuzzer may end with
# "context deadline exceeded" and no finding; that is not a failure. A finding
# is an input that it wrote below testdata/fuzz.
set -eu
time=${1:-30s}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
targets=$(grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -n1 dirname | sort -u)
n=0
for dir in $targets; do
	for target in $(grep -hoE '^func Fuzz[A-Za-z0-9_]+' "$dir"/*_test.go | sed 's/^func //'); do
		echo "== $dir $target ($time)"
		n=$((n + 1))
		if (cd "$dir" && go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 10x .) >"$log" 2>&1; then
			tail -n 3 "$log" | head -n 1
		elif grep -q 'context deadline exceeded' "$log" && ! grep -q 'Failing input' "$log"; then
			echo "   no finding; the time ended in the middle of an input"
		else
			cat "$log"
			exit 1
		fi
	done
done
[ "$n" -gt 0 ] || { echo "no fuzz targets were found" >&2; exit 1; }
echo "$n targets, no finding"
