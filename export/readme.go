package export

// readme is README.txt. It is the same in every archive of one stella version.
const readme = `This archive is evidence of what one site did in one window of time:
its ledger, the runs, the sealed files that they relied on, and its logs,
metrics and traces. manifest.json says which site, which window, and what
is withheld.

WHAT YOU NEED FROM ELSEWHERE

Two public keys of the site, got on another way than this archive:
log.pub (signs the ledger) and site.pub (signs this archive). The copies
below keys/ are for convenience. They prove nothing: whoever forges an
archive puts his own keys in.

THE WHOLE CHECK, WITH STELLA

  stella export verify ARCHIVE --log-key log.pub --site-key site.pub

It needs no site and no network. It takes the tar or this folder, makes
everything that can be derived anew, and says what each check proves.
Give it the checkpoint of an earlier archive of the same site with
--previous: only so does it see whether the ledger was rewritten since.

BY HAND, AND WHAT EACH STEP PROVES

  sha256sum -c SHA256SUMS
      The files are those that SHA256SUMS lists. This is consistency,
      not origin: anybody can write such a list.

  cosign verify-blob --key site.pub --insecure-ignore-tlog \
      --bundle SHA256SUMS.sigstore.json SHA256SUMS
      The holder of the site's key signed that list, hence all files.
      With the key from elsewhere, this is origin.
      (There is no transparency log: the site has no network.)

  zstd -d --keep ledger/*.zst telemetry/*.zst
      The compressed files open. Each is one frame.

  jq -c . ledger/envelopes.ndjson
      What happened, an entry a line: who, when, what. The SHA-256 of a
      zero byte and the line is the entry's leaf in the site's Merkle tree
      (RFC 6962). ledger/window.json holds the hashes that lead from the
      leaves to the root in ledger/checkpoint.note, which log.pub signed.
      That shows that no entry of the window is missing, added or changed.

  jq -c . ledger/data.ndjson
      The details. The SHA-256 of a line is the dataHash of the envelope
      with its seq. A line {"seq":N,"withheld":REASON} stands for details
      that the site does not give.

  jq -c '[.runId, .run.status]' ledger/runs.ndjson
      Runs, folded from their entries up to the window's end.

  evidence/sha256/
      Manifests, signatures, attestations, trust files, plans, inputs and
      outputs, each named by its SHA-256 as entries name it.

  telemetry/
      OTLP/JSON lines, for a stock OpenTelemetry collector: decompress,
      and read one signal a pipeline.

WHAT NO CHECK CAN SHOW

That the site wrote down everything it did. That there is no second ledger
under the same key: keep checkpoints of every archive, compare them with
those that others hold, and have witnesses sign them.
`
