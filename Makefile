# Build tags and cgo flags stand here, once.
#   containers_image_openpgp     signatures without gpgme's headers
#   exclude_graphdriver_btrfs    no btrfs headers
TAGS := containers_image_openpgp exclude_graphdriver_btrfs
export CGO_ENABLED := 1

GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# What is slow to make and worth keeping: the second generation of engines, the linter.
export UNMOOR_CACHE ?= $(if $(filter 0,$(shell id -u)),/var/cache/unmoor-itest,$(HOME)/.cache/unmoor-itest)

GOTESTSUM := $(UNMOOR_CACHE)/bin/gotestsum-v1.13.0
TEST := GO='$(GO)' scripts/gotest $(GOTESTSUM)

BUILD := $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)'
UNIT := ./core/... ./hooks/... ./plugins/... ./internal/... ./cmd/... ./packaging/...

# `make -j` runs nothing side by side: setup comes before the tests, and those measure time and look
# at all processes of the machine.
.NOTPARALLEL:

.PHONY: all
all: bin/unmoor

# The go command knows best what is out of date.
.PHONY: bin/unmoor bin/unmoor-failpoints
bin/unmoor:
	$(BUILD) -tags '$(TAGS)' -o $@ ./cmd/unmoor

# For tests: can be killed at every step of a removal.
bin/unmoor-failpoints:
	$(BUILD) -tags '$(TAGS) failpoints' -o $@ ./cmd/unmoor

# A double of CRI-O, for measuring.
.PHONY: bin/criodouble
bin/criodouble:
	$(BUILD) -tags '$(TAGS)' -o $@ ./itest/criodouble

# The main job on a throw-away store; UNMOOR_DEMO_USER=NAME as that user.
.PHONY: demo
demo: bin/unmoor
	scripts/demo

# All tests. As root on Debian this installs the engines that they need; elsewhere it says what it
# leaves out. Printed are the packages, failures whole, skips with their reasons, and what was
# measured or noted (scripts/gotest).
.PHONY: test
test: setup unit itest

.PHONY: setup
setup:
	itest/setup.sh

# One package at a time: core/kernel looks at all processes and mounts of the machine, and others make
# and end containers.
.PHONY: unit
unit: $(GOTESTSUM)
	$(TEST) -p 1 -tags '$(TAGS)' $(TESTFLAGS) $(UNIT)

# One package at a time here too: nothing runs beside the tests that measure.
.PHONY: itest
itest: bin/unmoor bin/unmoor-failpoints $(GOTESTSUM)
	UNMOOR_BIN=$(CURDIR)/bin/unmoor UNMOOR_FAILPOINTS_BIN=$(CURDIR)/bin/unmoor-failpoints \
		$(TEST) -p 1 -tags '$(TAGS)' -count=1 -timeout 40m $(TESTFLAGS) ./itest/...

# Side by side with podman and buildah; prints ratios.
.PHONY: bench
bench: bin/unmoor bin/criodouble setup
	UNMOOR_BIN=$(CURDIR)/bin/unmoor CRIO_DOUBLE=$(CURDIR)/bin/criodouble $(GO) run ./bench $(BENCHFLAGS)

LINT := $(UNMOOR_CACHE)/bin/golangci-lint-v2.15.0
.PHONY: lint
lint: $(LINT)
	$(LINT) run --build-tags '$(subst $() ,$(comma),$(TAGS))' ./...
comma := ,

$(LINT):
	mkdir -p $(@D) $(@D)/tmp
	CGO_ENABLED=0 GOFLAGS= GOBIN=$(@D)/tmp $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
	mv $(@D)/tmp/golangci-lint $@

$(GOTESTSUM):
	mkdir -p $(@D) $(@D)/tmp
	CGO_ENABLED=0 GOFLAGS= GOBIN=$(@D)/tmp $(GO) install gotest.tools/gotestsum@v1.13.0
	mv $(@D)/tmp/gotestsum $@

# Without the second that the detector has every process wait at its end: the tests start hundreds.
.PHONY: race
race: $(GOTESTSUM)
	GORACE=atexit_sleep_ms=0 $(TEST) -p 1 -race -short -tags '$(TAGS)' $(TESTFLAGS) $(UNIT)

# The Varlink interfaces as Go packages. The generator writes beside its input.
.PHONY: generate
generate: varlink/removal/iounmoorremoval.go varlink/plugin/iounmoorplugin.go
varlink/removal/iounmoorremoval.go: varlink/io.unmoor.Removal.varlink go.mod
varlink/plugin/iounmoorplugin.go: varlink/io.unmoor.Plugin.varlink go.mod
varlink/%.go:
	$(GO) tool varlink-go-interface-generator $<
	mkdir -p $(@D) && mv varlink/$(@F) $@

# Go's own checks that the tree is as its tools would leave it.
.PHONY: check
check:
	@out=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$out" ] || { echo "gofmt would change: $$out"; exit 1; }
	$(GO) vet -tags '$(TAGS)' ./...
	$(GO) vet -tags '$(TAGS) failpoints' ./cmd/...
	$(MAKE) -B generate && git diff --exit-code -- varlink
	$(GO) mod tidy -diff
	$(GO) mod verify

# The manual: of the commands what --help says, of the configuration config.toml itself.
.PHONY: man
man: bin/unmoor
	rm -rf bin/man && mkdir -p bin/man/man1 bin/man/man5
	bin/unmoor man bin/man/man1
	@# Nothing of it means anything to troff.
	{ cat docs/man/unmoor-config.5; sed -e 's/\\/\\e/g' -e 's/-/\\-/g' -e "s/^[.']/\\\\\&&/" config.toml; echo .fi; } >bin/man/man5/unmoor-config.5

.PHONY: completions
completions: bin/unmoor
	mkdir -p bin/completions
	for shell in bash zsh fish; do bin/unmoor completion $$shell >bin/completions/$$shell || exit; done

# Where `make install` puts things; systemd, man, bash and fish look below /usr/local too. The units name
# the binary where it is installed, and the configuration is always /etc/unmoor/config.toml: one that is
# there is kept.
PREFIX ?= /usr/local
BINDIR = $(DESTDIR)$(PREFIX)/bin
UNITDIR = $(DESTDIR)$(PREFIX)/lib/systemd/system
USERUNITDIR = $(DESTDIR)$(PREFIX)/lib/systemd/user
TMPFILESDIR = $(DESTDIR)$(PREFIX)/lib/tmpfiles.d
MANDIR = $(DESTDIR)$(PREFIX)/share/man
VARLINKDIR = $(DESTDIR)$(PREFIX)/share/unmoor
BASHDIR = $(DESTDIR)$(PREFIX)/share/bash-completion/completions
ZSHDIR = $(DESTDIR)$(PREFIX)/share/zsh/site-functions
FISHDIR = $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
UNITS = $(notdir $(wildcard packaging/systemd/*.socket packaging/systemd/*.service packaging/systemd/*.timer))
USERUNITS = $(notdir $(wildcard packaging/systemd/user/*))

.PHONY: install
install: bin/unmoor man completions
	install -D -m 0755 -t $(BINDIR) bin/unmoor
	install -D -m 0644 -t $(UNITDIR) $(addprefix packaging/systemd/,$(UNITS))
	install -D -m 0644 -t $(USERUNITDIR) $(addprefix packaging/systemd/user/,$(USERUNITS))
	sed -i 's|/usr/bin/unmoor|$(PREFIX)/bin/unmoor|' $(addprefix $(UNITDIR)/,$(UNITS)) $(addprefix $(USERUNITDIR)/,$(USERUNITS))
	install -D -m 0644 -t $(TMPFILESDIR) packaging/systemd/unmoor.conf
	install -D -m 0644 -t $(VARLINKDIR) varlink/*.varlink
	install -D -m 0644 -t $(MANDIR)/man1 bin/man/man1/*
	install -D -m 0644 -t $(MANDIR)/man5 bin/man/man5/*
	install -D -m 0644 bin/completions/bash $(BASHDIR)/unmoor
	install -D -m 0644 bin/completions/zsh $(ZSHDIR)/_unmoor
	install -D -m 0644 bin/completions/fish $(FISHDIR)/unmoor.fish
	[ -e $(DESTDIR)/etc/unmoor/config.toml ] || install -D -m 0644 -t $(DESTDIR)/etc/unmoor config.toml

# All that install puts there but the configuration.
.PHONY: uninstall
uninstall:
	rm -f $(BINDIR)/unmoor $(addprefix $(UNITDIR)/,$(UNITS)) $(addprefix $(USERUNITDIR)/,$(USERUNITS))
	rm -f $(TMPFILESDIR)/unmoor.conf $(MANDIR)/man1/unmoor.1 $(MANDIR)/man1/unmoor-*.1 $(MANDIR)/man5/unmoor-config.5
	rm -f $(BASHDIR)/unmoor $(ZSHDIR)/_unmoor $(FISHDIR)/unmoor.fish
	rm -rf $(VARLINKDIR)

.PHONY: clean
clean:
	rm -rf bin
