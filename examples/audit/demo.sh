#!/bin/sh
# The whole way on real data: a publisher signs plugins, data and a DAG; an
# offline site judges and runs them; an auditor checks the archive.
#
#   sh examples/audit/demo.sh [STELLA] [FOLDER]
#
# It needs Go (to build the plugins, from the module cache alone) and the
# coreutils; zstd for the last check. It replaces FOLDER.
set -eu
stella=$(CDPATH='' cd "$(dirname "${1:-bin/stella}")" && pwd)/$(basename "${1:-bin/stella}")
demo=${2:-demo}
here=$(CDPATH='' cd "$(dirname "$0")" && pwd)

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
[ -t 1 ] || say() { printf '\n== %s\n' "$*"; }
run() { printf '$ stella %s\n' "$*"; "$stella" "$@"; }

if [ -e "$demo" ]; then
	[ -e "$demo/.stella-demo" ] || { echo "demo: $demo exists and is not a demo; remove it or name another folder" >&2; exit 1; }
	chmod -R u+w "$demo" && rm -rf "$demo"
fi
mkdir -p "$demo/media" "$demo/publisher" "$demo/auditor"
demo=$(CDPATH='' cd "$demo" && pwd)
touch "$demo/.stella-demo"
STELLA_HOME=$demo/site
export STELLA_HOME

say "The publisher builds, packs and signs"
sh "$here/build.sh" "$demo/src"
cd "$demo"
run bundle keygen --out publisher/acme.key
for name in inventory match report advisories dag; do
	"$stella" bundle pack "src/$name" --out "media/$name.stella" --quiet
	"$stella" bundle sign "media/$name.stella" --key publisher/acme.key --quiet
done
ls -l media | awk 'NR > 1 { printf "  %10d  %s\n", $5, $9 }'

say "The site is made, and believes the publisher"
run init --allow-plain
run trust add acme --key publisher/acme.key.pub --kind plugin,dag,data --name audit,advisories \
	--host-read /usr,/opt,/etc/os-release,/var/lib/dpkg
# What an auditor is given once, by another way than the archives.
cp site/keys/log.pub site/keys/site.pub auditor/

say "Everything on the stick is judged and sealed"
run bundle import media/*.stella
run orch dag publish acme/audit@1.0.0
run orch dag graph audit

say "The audit runs; the same token again is the same run"
run orch run start --dag-id audit --run-token demo-1 --input title="Software audit of this machine"
first=$("$stella" orch run start --dag-id audit --run-token demo-1 --input title="Software audit of this machine" --output json |
	sed -n 's/.*"runId": *"\([^"]*\)".*/\1/p' | head -n 1)
run orch run status "$first"

say "One byte changed, and the bundle is refused"
cp media/report.stella media/report-changed.stella
printf 'X' | dd of=media/report-changed.stella bs=1 seek=700 conv=notrunc 2>/dev/null
if run bundle import media/report-changed.stella; then
	echo "demo: a changed bundle was admitted" >&2
	exit 1
fi

say "The ledger is verified, and the evidence leaves the site"
run ledger verify
run export create --out auditor/archive.tar

say "The auditor checks it without the site"
(unset STELLA_HOME; cd auditor; printf '$ stella export verify archive.tar …\n'
	"$stella" export verify archive.tar --log-key log.pub --site-key site.pub)
mkdir auditor/unpacked
tar -xf auditor/archive.tar -C auditor/unpacked
cd auditor/unpacked
printf '$ sha256sum -c SHA256SUMS\n'
sha256sum -c --quiet SHA256SUMS && echo "  all $(wc -l <SHA256SUMS) files are what SHA256SUMS says"
if command -v zstd >/dev/null 2>&1; then
	printf '$ zstd -t\n'
	find . -name '*.zst' -exec zstd -tq {} + && echo "  all compressed files are whole; the ledger begins:"
	zstd -dcq ledger/envelopes.ndjson.zst | head -n 2 | cut -c 1-160
else
	echo "  zstd is not installed: the compressed files were not tested by another program than stella"
fi
cd "$demo"

say "The report"
run orch run artifacts "$first" --out report --quiet
ls report | sed "s|^|  $demo/report/|"
