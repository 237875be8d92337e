#!/bin/sh
# Says which tests against other programs, or as another kind of user, were not
# exercised here. Each such test skips by itself; go test shows no skips of a
# package that passes, so they are named here. STELLA_REQUIRE=cosign,zstd makes
# a missing one a failure.
set -u
PATH=$PATH:${HOME:-/}/go/bin # where go install puts cosign
rc=0
missing() {
	echo "NOT EXERCISED: $1: $2"
	case ",${STELLA_REQUIRE:-}," in *",$1,"*) rc=1 ;; esac
}
for p in \
	"cosign|signatures of both sides verified by the other" \
	"sha256sum|the archive's list checked without stella" \
	"zstd|the archive's files decompressed without stella" \
	"jq|the archive's JSON read without stella" \
	"dpkg|the order of Debian versions compared"; do
	command -v "${p%%|*}" >/dev/null 2>&1 || missing "${p%%|*}" "${p#*|}"
done
if [ "$(id -u)" != 0 ] || ! command -v mkfs.ext4 >/dev/null 2>&1 || ! losetup -f >/dev/null 2>&1; then
	missing powercut "losses of power, on a disk that is cut off"
fi
command -v strace >/dev/null 2>&1 || missing strace "that a loss of power is felt where nothing is synced, and that no call that changes a site is missed"
grep -qs user_notif /proc/sys/kernel/seccomp/actions_avail || missing faults "system calls that fail"
[ -x bin/otelcol ] || missing otelcol "telemetry taken by a collector: make otelcol"
[ -n "${STELLA_CONFORMANCE:-}" ] || missing conformance "the bundles of sigstore-conformance: STELLA_CONFORMANCE names a checkout"
if [ "$(id -u)" = 0 ]; then
	unshare -n true 2>/dev/null || missing unshare "commands in an empty network namespace"
	missing ordinary-user "the suite as an ordinary user"
else
	unshare -rn true 2>/dev/null || missing unshare "commands in an empty network namespace"
	missing root "the suite as root"
fi
exit $rc
