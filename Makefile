# Everything a new user needs: `make demo` shows it, `make test` proves it. Both set up what they need.
SHELL := /bin/bash
ARGS ?=

.PHONY: demo test check build setup setup-tests bench fuzz format clean

demo: setup
	@node scripts/demo.mjs $(ARGS)

test: setup-tests
	@node scripts/test.mjs

check: node_modules/.installed
	@node scripts/check.mjs

bench: setup-tests
	@node scripts/bench.mjs $(ARGS)
	@node scripts/bench-footprint.mjs $(ARGS)

fuzz: node_modules/.installed
	@node scripts/fuzz.mjs $(ARGS)

format: node_modules/.installed
	@npm run --silent format

setup setup-tests: build
	@node scripts/setup.mjs $@

build: node_modules/.installed
	@node scripts/build.mjs

node_modules/.installed: package.json package-lock.json
	@npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2
	@touch $@

clean:
	rm -rf bin node_modules coverage
