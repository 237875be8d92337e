#!/bin/sh
# The steps of the scripts about recovery.
set -eu

# field prints a string of the request's params.
field() { sed -n 's/.*"'"$1"'": *"\([^"]*\)".*/\1/p' "$STELLA_INPUT"; }

case $1 in
say)
	echo "said: $(field text)"
	printf '{"output":{"text":"%s"}}\n' "$(field text)" >>"$STELLA_OUTPUT"
	;;
make)
	field text >"$STELLA_ARTIFACTS/report.txt"
	echo '{"artifact":{"name":"report.txt","mediaType":"text/plain"}}' >>"$STELLA_OUTPUT"
	;;
moody)
	[ "$(field mood)" = good ] && exit 0
	case $(sed -n 's/.*"attempt": *\([0-9]*\).*/\1/p' "$STELLA_INPUT") in
	1) exit 75 ;;
	2) kill -SEGV $$ ;;
	*) exit 3 ;;
	esac
	;;
need)
	[ -e "$(field file)" ] || exit 3
	printf '{"output":{"found":"%s"}}\n' "$(field file)" >>"$STELLA_OUTPUT"
	;;
hold)
	echo "holding"
	until [ -e "$(field until)" ]; do sleep 0.02; done
	echo "released"
	;;
esac
