# The front door: "make" alone tells what there is.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

# How long each fuzz target runs, and below which directory they are.
FUZZTIME ?= 30s
FUZZ ?= ./

# The systems that lint looks at.
SYSTEMS ?= linux windows freebsd

STATICCHECK_VERSION := v0.8.2
GOFUMPT_VERSION := v0.12.0

# Where downloads are kept; test/setup.sh and test/vm look for the same place.
CACHE := $(or $(BELLHOP_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/bellhop)
STATICCHECK := $(CACHE)/bin/staticcheck-$(STATICCHECK_VERSION)/staticcheck
GOFUMPT := $(CACHE)/bin/gofumpt-$(GOFUMPT_VERSION)/gofumpt

# If setup.sh had to fetch a Go, that one is used.
export PATH := $(CACHE)/go/bin:$(PATH):/usr/local/go/bin

# Setup goes before the rest, and builds are parallel by themselves.
.NOTPARALLEL:

.PHONY: help
help: ## explain the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

.PHONY: setup
setup: ## install and download what the tests need (Debian; as root if packages are missing)
	@test/setup.sh tests

# The demo is not to wait for what only tests need.
.PHONY: setup-small
setup-small:
	@test/setup.sh

.PHONY: build
build: ## build static binaries of qemu-ga and bellhop into bin/
	@mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)' -o bin/ ./cmd/...

# Packages whose tests wait for guests a lot, and do not mind others next to them.
PATIENT := debian|freeze|hooks|libvirt|sidebyside

# The others run one after another: some count how often an idle agent wakes up. No
# result comes from the cache, as that knows nothing of the programs that these tests
# build.
.PHONY: test
test: setup race ## run all tests: under the race detector, beside the C agent, in a guest
	go test -count=1 -timeout 30m -p 2 $$(go list ./test/... | grep -E '/($(PATIENT))$$')
	go test -count=1 -timeout 30m -p 1 $$(go list ./test/... ./bench/... | grep -vE '/($(PATIENT))$$')

# Guests and the C agent are no business of the race detector, and sizes and
# speeds are not what they are without it.
.PHONY: race
race: ## run the unit tests under the race detector
	go test -race $$(go list ./... | grep -v -e /test/ -e /bench)

# ST1005 wants errors to begin in lower case; those that go over the wire begin
# as the C agent has them.
.PHONY: lint
lint: $(STATICCHECK) $(GOFUMPT) ## check form and sense of the code, for each system
	@unformatted=$$($(GOFUMPT) -l .) && \
		if [ -n "$$unformatted" ]; then echo "not gofumpt's form:" $$unformatted; exit 1; fi
	@set -e; for system in $(SYSTEMS); do \
		echo "vet and staticcheck for $$system"; \
		GOOS=$$system go vet ./...; \
		GOOS=$$system $(STATICCHECK) -checks inherit,-ST1005 ./...; \
	done

$(STATICCHECK):
	GOBIN=$(@D) go install honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK_VERSION)

$(GOFUMPT):
	GOBIN=$(@D) go install mvdan.cc/gofumpt@$(GOFUMPT_VERSION)

# A second run after a failure: the fuzzing engine at times takes its own end for
# one, while an input that really fails has been saved and fails again at once.
.PHONY: fuzz
fuzz: ## run each fuzz target, below FUZZ (./), for FUZZTIME (30s)
	@set -e; grep -r --include='*_test.go' '^func Fuzz' $(FUZZ) | sed 's|/[^/]*_test.go:func | |; s|(.*||' | \
	while read -r package target; do \
		echo "$$package $$target"; \
		fuzz="go test -run ^Fuzz -fuzz ^$$target\$$ -fuzztime $(FUZZTIME) $$package"; \
		$$fuzz </dev/null || $$fuzz </dev/null; \
	done

.PHONY: bench
bench: setup-small build ## measure the same work done by the C agent and by ours
	go run ./bench

.PHONY: docs
docs: ## make docs/coverage.md anew
	go run ./test/coverage > docs/coverage.md.new && mv docs/coverage.md.new docs/coverage.md

.PHONY: demo
demo: setup-small build ## boot a guest and ask our agent in it, in under two minutes
	@go run ./test/demo

.PHONY: clean
clean: ## remove what was built; the downloads stay in the cache
	rm -rf bin
