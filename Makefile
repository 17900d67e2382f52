# Building needs only Go. "make help" lists what there is.

TOOL := go tool -modfile=tools/go.mod
LINT := go tool -modfile=tools/lint/go.mod golangci-lint
TESTFLAGS := --format pkgname-and-test-fails --format-hide-empty-pkg --
TEST := $(TOOL) gotestsum $(TESTFLAGS)
DESCRIBE := $(TOOL) buf build --as-file-descriptor-set --exclude-imports

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null)
LDFLAGS := -s -w -X github.com/buddyring/buddyring/internal/version.release=$(VERSION)

export CGO_ENABLED ?= 0
# The same flags everywhere, so that builds and tests share what is compiled.
export GOFLAGS := $(strip $(GOFLAGS) -trimpath)

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/buddyring-coordinator, -agent, -router and bin/buddyctl
	@for program in coordinator agent router buddyctl; do \
	  case $$program in buddyctl) name=buddyctl ;; *) name=buddyring-$$program ;; esac; \
	  echo "building bin/$$name"; \
	  go build -ldflags '$(LDFLAGS)' -o bin/$$name ./$$program || exit 1; \
	done

.PHONY: build-bench
build-bench: ## build bin/bench-memberlist, which buddyring is compared with
	@echo "building bin/bench-memberlist"
	@cd bench && go build -ldflags '-s -w' -o ../bin/bench-memberlist ./memberlist

.PHONY: test
test: ## run all tests but the long ones; needs root, installs MariaDB, Galera, HAProxy, Prometheus, dig and curl if they are missing
	@.ci/prerequisites mariadbd galera haproxy prometheus dig curl pkill
	@$(TEST) -count=1 ./coordinator/store
	@$(TEST) -tags galera -count=1 -timeout 4m ./coordinator/store
	@$(TEST) -tags galera -count=1 -timeout 4m -run OfGalera ./coordinator/server
	@$(TEST) -tags 'lab mariadb' -count=1 -timeout 9m ./...

.PHONY: test-tidb
test-tidb: ## run the tests of the server table on TiDB, in memory; its first build downloads 600 modules and takes minutes
	@cd internal/testdb/tidb && go build -o ../../../bin/test-tidb .
	@BUDDYRING_TIDB=$(CURDIR)/bin/test-tidb $(TEST) -tags tidb -count=1 -timeout 10m ./coordinator/store

.PHONY: race
# One processor a test program: with more, the race detector itself crashes in
# testing/synctest when timers of one bubble run on two (golang/go#78156).
race: ## run the tests under the race detector; installs a C compiler if it is missing
	@.ci/prerequisites gcc
	@CGO_ENABLED=1 $$(go tool -n -modfile=tools/go.mod gotestsum) $(TESTFLAGS) -race -cpu 1 -count=1 -vet=off -timeout 9m ./...

.PHONY: cross
cross: ## build for other systems and processors
	@for target in darwin/arm64 linux/arm64; do \
	  echo "building for $$target"; \
	  GOOS=$${target%/*} GOARCH=$${target#*/} go build ./... || exit 1; \
	done

.PHONY: lint
lint: ## check style: buf, go vet, golangci-lint
	@$(TOOL) buf lint
	@$(TOOL) buf format --diff --exit-code
	@$(TOOL) buf breaking --against proto/released.binpb
	@go vet ./...
	@cd bench && go vet ./...
	@$(LINT) fmt --diff
	@$(LINT) run
	@cd bench && go tool -modfile=../tools/lint/go.mod golangci-lint run

.PHONY: fmt
fmt: ## format Go and proto
	@$(TOOL) buf format --write
	@$(LINT) fmt

.PHONY: generate
generate: ## generate Go from proto, and the files that reflection serves
	@$(TOOL) buf generate
	@$(DESCRIBE) -o proto/described/files.binpb

.PHONY: contract
contract: ## on a release: take the present proto as what lint lets nobody break
	@$(TOOL) buf build --exclude-source-info -o proto/released.binpb

.PHONY: check-generate
check-generate: ## check that the generated code is what generate gives
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && \
	  $(TOOL) buf generate --output "$$dir" && \
	  mkdir "$$dir/proto/described" && $(DESCRIBE) -o "$$dir/proto/described/files.binpb" && \
	  diff -r --exclude='*.proto' --exclude=released.binpb --exclude='described*.go' proto "$$dir/proto" || \
	  { echo "generated code differs: run make generate"; exit 1; }

.PHONY: demo
demo: build ## show a pool that notices a dead server; under a minute, nothing to configure
	@bin/buddyctl demo

.PHONY: lab
lab: ## run the tests with real programs, one network namespace per host, at full length; needs root
	@.ci/prerequisites haproxy
	@BUDDYRING_LAB_LONG=1 $(TEST) -tags lab -count=1 -timeout 30m ./internal/... ./agent/...

N ?= 12
CRASHES ?= 50
EXPERIMENT ?= crash

.PHONY: lab-detect
lab-detect: build ## measure how soon a crash is noticed: a pool of N (12) real agents, CRASHES (50) crashes; or EXPERIMENT=calm or cost
	@go run ./internal/lab/lab-detect --experiment $(EXPERIMENT) --n $(N) --crashes $(CRASHES) $(ARGS)

.PHONY: bench-detect
bench-detect: N := $(if $(filter command line environment,$(origin N)),$(N),50)
bench-detect: CRASHES := $(if $(filter command line environment,$(origin CRASHES)),$(CRASHES),20)
bench-detect: build build-bench ## compare with memberlist: the same CRASHES (20) in pools of N (50), in turns; takes minutes
	@go run ./internal/lab/lab-detect --experiment versus --n $(N) --crashes $(CRASHES) $(ARGS)

.PHONY: lab-doors
lab-doors: build ## use a pool by every door while servers, routers and the coordinator are restarted and killed, and count the requests that fail; minutes
	@.ci/prerequisites haproxy
	@go run ./internal/lab/lab-doors $(ARGS)

.PHONY: bench-xds
bench-xds: ## measure the xDS door with grpc-go's own client: removals, drains, a minute without the router
	@go run ./internal/bench/xdsbench/bench-xds $(ARGS)

.PHONY: sim
sim: ## simulate pools of thousands under every kind of fault, and print the figures beside their targets; minutes
	@go run ./internal/sim/sim-targets $(ARGS)

.PHONY: sim-night
sim-night: ## the same with 50 times as many seeds; hours
	@go run ./internal/sim/sim-targets --effort 50 $(ARGS)

KILLS ?= 100

.PHONY: chaos
chaos: build ## kill the leader of three coordinators KILLS (100) times, stop and replace it, judge the history of all that was asked and seen, and print how long there was no leader; half an hour
	@.ci/prerequisites mariadbd
	@go run ./internal/chaos/chaos-leader --kills $(KILLS) $(ARGS)

.PHONY: chaos-galera
chaos-galera: build ## the same on a Galera cluster of three, whose nodes are killed, stopped and cut off as well; 20 minutes
	@.ci/prerequisites mariadbd galera
	@go run ./internal/chaos/chaos-leader --galera --kills 20 --crashes 10 --handovers 10 --nodes 24 --clocks 6 $(ARGS)

RUNS ?= 60

.PHONY: chaos-night
chaos-night: build ## the same RUNS (60) times with fewer faults each, from one seed after the other; hours
	@.ci/prerequisites mariadbd
	@go run ./internal/chaos/chaos-leader --runs $(RUNS) --kills 15 --handovers 8 --stops 2 --cuts 2 --outages 4 --crashes 15 --clocks 4 --slows 2 $(ARGS)

.PHONY: bench
bench: ## run the benchmarks
	@go test -run '^$$' -bench . -benchmem ./...

.PHONY: bench-router
bench-router: ## measure a router: picks, Pick beside a bare echo, fan-out to watchers, memory, xDS, a rolling restart; ARGS="--only R1,R2" for some
	@go build -o bin/bench-router ./internal/bench/bench-router
	@bin/bench-router $(ARGS)

.PHONY: bench-coordinator
bench-coordinator: build ## measure a coordinator: memory and processor of 10,000 agents, their return after a kill, joins a second; ARGS="--only S5" for some
	@.ci/prerequisites mariadbd
	@go build -o bin/bench-coordinator ./internal/bench/coordbench/bench-coordinator
	@bin/bench-coordinator $(ARGS)

FUZZTIME ?= 20s

.PHONY: fuzz
fuzz: ## run each fuzz test for FUZZTIME (20s)
	@go test -list '^Fuzz' -json ./... | \
	  sed -nE 's/.*"Package":"([^"]+)".*"Output":"(Fuzz[^"\\]+)\\n".*/\1 \2/p' | \
	  while read -r package name; do \
	    echo "$$package $$name"; \
	    go test -run '^$$' -fuzz "^$$name$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s "$$package" </dev/null || exit 1; \
	  done

.PHONY: cover
cover: ## measure what the tests reach, into coverage.txt
	@go test -coverprofile coverage.txt -coverpkg=./... ./...
	@go tool cover -func coverage.txt | tail -n 1

.PHONY: ci
ci: ## run everything that must hold before a change lands
	@.ci/run

.PHONY: clean
clean: ## remove what the other targets made
	@rm -rf bin coverage.txt
