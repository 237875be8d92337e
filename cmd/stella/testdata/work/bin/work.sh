#!/bin/sh
# The steps of the scripts in testdata/script.
set -eu

# field prints a string of the request's params.
field() { sed -n 's/.*"'"$1"'": *"\([^"]*\)".*/\1/p' "$STELLA_INPUT"; }

case $1 in
say)
	echo "said: $(field text)"
	echo "aside" >&2
	printf '{"output":{"text":"%s"}}\n' "$(field text)" >>"$STELLA_OUTPUT"
	;;
fail)
	echo "about to fail"
	exit 3
	;;
hold)
	echo "holding"
	until [ -e "$(field until)" ]; do sleep 0.02; done
	echo "released"
	;;
mess)
	mkdir -p a/b/c
	echo text >a/b/c/file
	ln -s / root
	ln -s ../../../../keys keys
	ln -s "$PWD/.." up
	ln a/b/c/file same
	mkfifo pipe
	chmod 0 a/b/c a/b a
	exit 3
	;;
shout)
	printf '\033[2J\033]0;owned\007red\r\n'
	printf 'abc\342\200\256cba\n'
	;;
esac
