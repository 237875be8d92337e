#!/bin/sh
# Writes the trust files of a fleet, as its officers would by hand:
#   fleet.sh root FILE VERSION THRESHOLD KEY.pub... [-- MAX THRESHOLD KEY.pub...]
#   fleet.sh policy FILE SERIAL ROOT_VERSION NEXT_UPDATE KEY.pub
#   fleet.sh revocations FILE SERIAL ROOT_VERSION NEXT_UPDATE [LINE...]
#   fleet.sh bundle DIR SEQUENCE AUDIENCE PART...
set -eu
fleet=f1ee0000000000000000000000000001
what=$1 out=$2
shift 2

keys() {
	printf 'keys = ['
	for k in "$@"; do printf '"""\n%s\n""", ' "$(cat "$k")"; done
	printf ']\n'
}

case $what in
root)
	version=$1 threshold=$2
	shift 2
	signers= max=
	while [ $# -gt 0 ] && [ "$1" != -- ]; do signers="$signers $1"; shift; done
	[ $# -eq 0 ] || { shift; max=$1; shift; }
	{
		printf 'schema = "stella.root/1"\nversion = %s\nfleet_id = "%s"\n' "$version" $fleet
		printf 'issued = "2026-11-22T00:00:00.000000000Z"\nexpires = "2096-11-22T00:00:00.000000000Z"\n'
		[ -z "$max" ] || printf 'max_extension = "%s"\n' "$max"
		for role in root policy revocation; do
			printf '\n[roles.%s]\nthreshold = %s\n' $role "$threshold"
			keys $signers
		done
		if [ -n "$max" ]; then
			printf '\n[roles.break_glass]\nthreshold = %s\n' "$1"
			shift
			keys "$@"
		fi
	} >"$out"
	;;
policy)
	printf 'schema = "stella.policy/1"\nserial = %s\nroot_version = %s\n' "$1" "$2" >"$out"
	printf 'issued = "2026-11-22T00:00:00.000000000Z"\nnext_update = "%s"\n\n' "$3" >>"$out"
	printf '[[publisher]]\nname = "acme"\nthreshold = 1\nkinds = ["plugin", "dag", "data"]\nnames = ["work", "flow", "data"]\n\n' >>"$out"
	printf '[[publisher.key]]\npem = """\n%s\n"""\n\n[publisher.allow]\ninterpreters = ["/bin/sh"]\n' "$(cat "$4")" >>"$out"
	;;
revocations)
	printf 'schema = "stella.revocations/1"\nserial = %s\nroot_version = %s\n' "$1" "$2" >"$out"
	printf 'issued = "2026-11-22T00:00:00.000000000Z"\nnext_update = "%s"\n' "$3" >>"$out"
	shift 3
	for line in "$@"; do printf '\n[[revoke]]\n%s\n' "$line" >>"$out"; done
	;;
bundle)
	printf 'schema = "stella.bundle/1"\nkind = "trust"\npublisher = "fleet"\nname = "fleet.trust"\nversion = "%s.0.0"\nsequence = %s\n' "$1" "$1" >"$out/stella.toml"
	printf 'created = "2026-11-22T00:00:00.000000000Z"\naudience = ["%s"]\n\n[trust]\n' "${2:-$fleet}" >>"$out/stella.toml"
	shift 2
	for part in "$@"; do printf '%s = "%s.toml"\n' "$part" "$part" >>"$out/stella.toml"; done
	;;
esac
