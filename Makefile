# The targets that developers and CI call. `make help` lists them.

GOLANGCI := go tool -modfile=tools/go.mod golangci-lint
SYSTEMS  := darwin/arm64 windows/amd64 linux/arm64
FUZZTIME ?= 20s
BENCH    ?= .

.PHONY: help build test fmt lint race interop bench fuzz

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' $(MAKEFILE_LIST)

build: ## the binary, bin/bridgehead
	CGO_ENABLED=0 go build -trimpath -o bin/bridgehead ./cmd/bridgehead

test: ## all tests
	go test ./...

fmt: ## format all Go files
	gofmt -w .

lint: ## format, modules, vet, linters, and a build for every system
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "gofmt would change, run make fmt:"; echo "$$unformatted"; exit 1; }
	go mod tidy -diff
	go mod verify
	go vet ./...
	cd test/acme && go vet .
	$(GOLANGCI) run ./...
	@set -e; for system in $(SYSTEMS); do \
		echo "GOOS=$${system%/*} GOARCH=$${system#*/} go vet ./..."; \
		CGO_ENABLED=0 GOOS=$${system%/*} GOARCH=$${system#*/} go build ./...; \
		CGO_ENABLED=0 GOOS=$${system%/*} GOARCH=$${system#*/} go vet ./...; \
	done

race: ## all tests with the race detector
	go test -race ./...

interop: ## the binary with real clients, servers, brokers and an ACME authority; end to end over HTTP/2 by goroutines with TLS 1.2; needs Node.js
	./test/interop/run.sh
	E2E_HTTP=2 E2E_DRIVER=goroutines E2E_TLS=1.2 go test ./test/e2e

bench: ## the product beside other proxies, in six minutes; BENCH=wss picks scenarios, BENCHFLAGS="-rounds 9 -md" says more
	go run ./test/bench -run '$(BENCH)' $(BENCHFLAGS)

fuzz: ## every fuzz test for FUZZTIME each
	@set -e; grep -r --include='*_test.go' -o '^func Fuzz[A-Za-z0-9_]*' . | sort | while IFS=: read -r file name; do \
		echo "$$(dirname $$file): $${name#func }"; \
		go test -run '^$$' -fuzz "^$${name#func }\$$" -fuzztime $(FUZZTIME) "$$(dirname $$file)"; \
	done
