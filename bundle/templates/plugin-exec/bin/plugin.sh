#!/bin/sh
# One process for one attempt of one step. The request is JSON on stdin and in
# the file $STELLA_INPUT; results are JSON lines in the file $STELLA_OUTPUT.
# What is printed is a log. Exit 65 refuses the parameters, 75 asks for another
# try, 0 is success.
set -eu

echo "attempt $STELLA_ATTEMPT of $STELLA_STEP_ID"
printf '{"output":{"text":"hello"}}\n' >>"$STELLA_OUTPUT"
