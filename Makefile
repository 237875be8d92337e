# make build | demo | test | check | bench | fuzz | crash | fixtures | otelcol | soak | clean
SHELL      := /bin/sh
GO         ?= go
VERSION    ?= 0.1.0-dev
COMMIT     ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
DIRTY      := $(shell git diff --quiet HEAD 2>/dev/null || echo +dirty)
LDFLAGS    := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)$(DIRTY)
# grpcnotrace keeps grpc's trace pages, and with them html/template, out: 7 MB.
BUILDFLAGS := -trimpath -buildvcs=false -tags grpcnotrace -ldflags '$(LDFLAGS)'
FUZZTIME   ?= 30s
RACEFLAGS  ?= -short
# The init process of attempts, which becomes part of stella while this is there.
INIT       := runner/sandbox/embedded/init
MAKEINIT    = trap 'rm -f $(INIT)' EXIT; $(GO) build -trimpath -buildvcs=false -ldflags '-s -w' -o $(INIT) a.stella/initproc/cmd/stella-init
export GOTOOLCHAIN := local
export CGO_ENABLED := 0

.PHONY: build demo test race check bench fuzz crash fixtures otelcol soak clean

# One static binary, with a smaller one in it: see runner/sandbox/embedded. And
# the auditor's, which needs none of it.
build:
	@set -e; $(MAKEINIT); set -x; $(GO) build $(BUILDFLAGS) -o bin/stella ./cmd/stella
	$(GO) build -trimpath -buildvcs=false -ldflags '-s -w' -o bin/stella-audit ./cmd/stella-audit

# The whole way on real data, in ./demo: see examples/audit/demo.sh.
demo: build
	sh examples/audit/demo.sh bin/stella demo

test:
	$(GO) vet ./...
	$(GO) test -timeout 30m ./... a.stella/initproc
	@set -e; $(MAKEINIT); $(GO) test ./runner/sandbox
	@sh scripts/peers.sh

# The race detector alone needs cgo and a C compiler. Without RACEFLAGS also what one goroutine
# does, and what other processes do, which it sees nothing of.
race:
	CGO_ENABLED=1 $(GO) test -race $(RACEFLAGS) -timeout 40m ./bundle/... ./ledger/... ./store/... ./runner/... ./server/... ./internal/... ./telemetry/... ./export/...

# Everything that must hold before a commit: form, layers, reproducibility.
check: test
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) mod tidy -diff
	$(GO) mod verify
	sh scripts/reproducible.sh

bench: build
	$(GO) run ./bench

fuzz:
	sh scripts/fuzz.sh $(FUZZTIME)

# A child is killed at every failpoint, and its site is opened and checked. These are the tests
# of the files that are built with failpoints alone.
crash:
	@set -e; files=$$(grep -rl '^//go:build failpoint' --include='*_test.go' .); \
	tests=$$(sed -n 's/^func \(Test[A-Za-z]*\)(.*/\1/p' $$files | paste -sd '|' -); \
	set -x; $(GO) test -tags failpoint -count=1 -timeout 30m -run "^($$tests)\$$" $$(dirname $$files | sort -u)

fixtures:
	$(GO) run ./testdata/bundles/gen

# A stock collector of telemetry, to which a test sends what an archive has.
otelcol:
	cd testdata/peers/otelcol && $(GO) build -trimpath -buildvcs=false -ldflags '-s -w' -o ../../../bin/otelcol .

# What takes too long for every commit.
soak: FUZZTIME := 60s
soak: RACEFLAGS :=
soak: crash race
	$(GO) test -count=1 -timeout 120m -v ./internal/simtest -run Kills -kills 500
	$(GO) test -count=1 -timeout 60m -v ./internal/simtest -run PowerCuts -cuts 100
	$(GO) test -count=1 -timeout 120m -v ./internal/simtest -run Faults -faults 0
	CGO_ENABLED=1 $(GO) test -race -count=1 -timeout 60m -v ./internal/simtest -run Clients -ops 1000
	$(GO) test -count=1 -timeout 60m ./runner ./runner/state -run RandomHistories -rapid.checks 5000
	$(GO) test -count=1 -timeout 60m ./runner -run 'NothingBegins|NothingBelow|WhatTheEndOfARun' -rapid.checks 2000
	$(GO) test -count=1 -timeout 60m ./export -run 'Flipped|999' -every
	$(GO) test -count=1 -timeout 60m ./verify -run 'Every' -every
	$(GO) test -count=1 -timeout 60m ./store ./archive -run 'EveryByte|EachByteOfA|CheckBytesPasses' -every
	$(MAKE) fuzz FUZZTIME=$(FUZZTIME)

clean:
	rm -rf bin demo dist
