#!/bin/sh
# Makes a small site as a release of stella leaves it, for testdata/sites: runs that
# have completed, failed and been interrupted, and what else the release knows.
#
#   sh scripts/golden-site.sh STELLA OUT.tar.zst
#
# STELLA is a binary of that release. Prints what the site says of itself; the
# interrupted run is one whose process was killed. Needs zstd, and /bin/sh to run steps.
set -eu
stella=$(CDPATH='' cd "$(dirname "$1")" && pwd)/$(basename "$1")
out=$(CDPATH='' cd "$(dirname "$2")" && pwd)/$(basename "$2")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export STELLA_HOME="$work/site"
stella() { "$stella" "$@"; }

# bundle NAME: packs and signs the folder of that name.
bundle() {
	stella bundle pack "$1" --out "$1.stella" --quiet >/dev/null
	stella bundle sign "$1.stella" --key acme.key --quiet >/dev/null
}

# head_of NAME KIND: begins a manifest.
head_of() {
	mkdir -p "$1"
	cat >"$1/stella.toml" <<-END
		schema = "stella.bundle/1"
		kind = "$2"
		publisher = "acme"
		name = "$1"
		version = "1.0.0"
		sequence = 1
		created = "2026-11-22T00:00:00.000000000Z"
	END
}

stella bundle keygen --out acme.key >/dev/null
head_of work plugin
cat >>work/stella.toml <<-'END'
	[plugin]
	runtime = "exec"
	interpreter = "/bin/sh"
	entry = {"linux/amd64" = "bin/work", "linux/arm64" = "bin/work"}
	[plugin.actions.well]
	idempotent = true
	[plugin.actions.badly]
	idempotent = true
	args = ["badly"]
	[plugin.actions.long]
	idempotent = false
	args = ["long"]
END
mkdir -p work/bin
cat >work/bin/work <<-'END'
	#!/bin/sh
	case "${1:-}" in
	badly) echo "no such host" >&2; exit 3 ;;
	long) touch "$HELD"; exec sleep 600 ;;
	esac
	echo "as it should be"
	printf 'a report\n' >"$STELLA_ARTIFACTS/report.txt"
	echo '{"artifact":{"name":"report.txt","path":"report.txt","mediaType":"text/plain"}}' >>"$STELLA_OUTPUT"
	echo '{"output":{"list":[1,2,3]}}' >>"$STELLA_OUTPUT"
END
sed -i "s|\$HELD|$work/held|" work/bin/work
chmod 755 work/bin/work
bundle work

# dag NAME, and its steps on stdin.
dag() {
	head_of "$1" dag
	printf '[dag]\nspec = "dag.toml"\n' >>"$1/stella.toml"
	printf 'schema = "stella.dag/1"\ndag_id = "%s"\nversion = "1.0.0"\n' "$1" >"$1/dag.toml"
	cat >>"$1/dag.toml"
	bundle "$1"
	stella bundle import "$1.stella" --quiet >/dev/null
	stella orch dag publish "acme/$1@1.0.0" --quiet >/dev/null
}

# step ID ACTION [MORE]
step() { printf '[[step]]\nid = "%s"\nplugin = "acme/work@1.0.0"\naction = "%s"\n%s\n' "$1" "$2" "${3:-}"; }

stella init --allow-plain >/dev/null
names=work,well,badly,long,inner,rich
stella trust add acme --key acme.key.pub --kind plugin,dag,data --name "$names" --interpreter /bin/sh >/dev/null
stella bundle import work.stella --quiet >/dev/null
{ step a well; step b well 'needs = ["a"]'; } | dag well
{ step a well; step b badly 'needs = ["a"]'; } | dag badly
step a long | dag long

start() { stella orch run start --dag-id "$1" --run-token "$2" >/dev/null 2>&1; }
start well done-1
start well done-2
start badly failed-1 || [ $? = 4 ]
# What came with later releases.
if stella orch --help | grep -q "^  schedule "; then
	printf '[semaphores]\nlicence = 2\n' >>site/site.toml
	step a well | dag inner
	{
		step a well
		step each well 'needs = ["a"]
for_each = "${ steps.a.outputs.list }"
locks = ["merge"]'
		printf '[[step]]\nid = "sub"\ndag = "inner@1.0.0"\nneeds = ["a"]\nsemaphores = {licence = 1}\n'
		step ask well 'needs = ["each", "sub"]
[step.checkpoint]
question = "Go on?"'
	} | dag rich
	stella orch run start --dag-id rich --run-token asks-1 >/dev/null 2>&1 || [ $? = 9 ]
	stella orch run start --dag-id rich --run-token said-1 >/dev/null 2>&1 || [ $? = 9 ]
	id=$(stella orch run list --output ndjson | sed -n 's/.*"runId":"\([^"]*\)".*"runToken":"said-1".*/\1/p')
	stella orch approvals decide "$id.ask.1" --decision continue >/dev/null 2>&1
	stella orch schedule add nightly --dag-id well --cron '30 2 * * *' --zone Europe/Berlin >/dev/null
	printf 'hush-hush' >token
	stella secret set token --from token >/dev/null 2>&1
fi
stella ledger verify --full >/dev/null
stella orch run list --output ndjson

# Nothing opens the site after the process that executes is killed.
start long killed-1 &
while [ ! -e held ]; do sleep 0.1; done
stella status --output json | # asks the process that holds the site
	sed -n 's/^ *"pid": *\([0-9]*\).*/\1/p' | xargs kill -KILL
wait || :

rm -rf site/cache/*
tar --sort=name --owner=0 --group=0 --numeric-owner --exclude='*.sock' -C "$work" -cf - site | zstd -19 -q -f -o "$out"
