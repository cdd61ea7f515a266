# make run     builds, starts a private daemon where none runs, and opens the shell with a model mounted
# make test    runs every test
# make help    lists the rest

SHELL := /bin/bash
CARGO ?= cargo
BIN := target/release

# With the compiler that builds ggml: your own CC and CXX, or the newest clang from 19 on.
CARGO_CC = env $$(kernel/dist/prepare --print-env) $(CARGO)

SOAK_SECONDS ?= 600
FUZZ_SECONDS ?= 30
export SOAK_SECONDS FUZZ_SECONDS

.PHONY: help run build test kills lint bench bench-agents bench-resume bench-train bench-beside losses-train simulate prepare portable gpu-check mpi-check install uninstall deb check-systemd clean faults soak fuzz

help: ## lists the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

run: build ## opens the shell on a private daemon, with the starter model mounted
	@$(BIN)/llmsh --start --mount drivers/starter/starter.gguf=starter

prepare: ## installs the compilers and headers that are missing
	@kernel/dist/prepare

build: prepare ## builds everything for this machine
	$(CARGO_CC) build --release --workspace --bins --locked

test: build ## runs every test
	$(CARGO_CC) test --release --workspace --locked --no-fail-fast

kills: build ## kills the daemon 200 times under load, and compares what its processes say
	LLMASOS_TEST_KILLS=200 $(CARGO_CC) test --release --workspace --locked --test durable -- --nocapture streams

faults: build ## kills, damages, floods and fails everything, and shows the figures in one table
	@$(CARGO_CC:$(CARGO)=) tests/faults

soak: build ## lets clients do anything for SOAK_SECONDS, and looks for what is left
	$(BIN)/soak

fuzz: prepare ## runs each fuzz target for FUZZ_SECONDS under libFuzzer
	@$(CARGO_CC:$(CARGO)=) tests/fuzz/run

lint: prepare ## checks formatting and lints
	$(CARGO) fmt --all --check
	$(CARGO_CC) clippy --release --workspace --all-targets --locked -- --deny warnings

bench: build ## measures against llama.cpp's own tools, in alternation
	$(BIN)/bench

# ARGS="--quick", ARGS="--model 0.5b --only W1,W3b", … ; --help lists them.
bench-agents: build ## measures many processes on one model against llama-server, in alternation
	$(BIN)/bench-agents $(ARGS)

# The same in PyTorch runs beside it if PYTHON has one. ARGS="nano" for one shape.
PYTHON ?= python3
bench-train: ## measures training, in alternation with PyTorch where PYTHON has it
	$(CARGO) build --release --locked -p llmasos-train --example speed
	@if $(PYTHON) -c 'import torch' 2>/dev/null; then $(BIN)/examples/speed --python $(PYTHON) $(ARGS); \
	else echo "bench-train: $(PYTHON) has no PyTorch; name one that has it with PYTHON=PATH"; \
	$(BIN)/examples/speed $(ARGS); fi

# TEXT is Karpathy's tiny Shakespeare. Each run takes some minutes.
TEXT ?= ../shared/data/lm/tinyshakespeare.txt
SEEDS ?= 1337 1 2
losses-train: build ## trains nanoGPT's small configuration over SEEDS in both precisions, and prints validation losses
	@for seed in $(SEEDS); do for precision in F32 Bf16; do out=$$(mktemp -d); \
	$(BIN)/llmasos-trainer run drivers/train/specs/shakespeare.ron --alone --quiet --set out=$$out/run \
	--set 'data.train={"Text":["$(TEXT)"]}' --set seed=$$seed --set precision=$$precision \
	--set evaluation.every=2000 --set evaluation.batches=null --set samples.every=0 || exit 1; \
	echo "$$precision, seed $$seed: $$(grep '"evaluation"' $$out/run/log.jsonl | tail -1)"; rm -r $$out; done; done

bench-beside: build ## measures a chat beside training of class batch, in alternation with the chat alone
	$(BIN)/bench-beside $(ARGS)

# ARGS="--preset 0.5b --tokens 16384", …
bench-resume: build ## measures a long context resumed after kill -9 against the same computed again
	$(BIN)/bench-resume $(ARGS)

simulate: ## runs the kernel's core in virtual time: policies on a real trace, and what idle processes cost
	$(CARGO) build --release --locked -p llmasos-tests --bin simulate
	$(BIN)/simulate compare --out target/simulate
	$(BIN)/simulate idle

# Chooses the CPU variant of ggml at run time instead of at build time.
portable: prepare ## builds for any x86-64 or arm64 machine, in target/portable
	RUSTFLAGS="" $(CARGO_CC) build --release --workspace --bins --locked \
	  --features llmasos-drivers/dynamic-backends --target-dir target/portable

# Of training: the tests on the card, then speed beside PyTorch's where PYTHON has it, then nanoGPT's configuration for GPUs
# on TEXT, whose validation loss is to be 1.47 (nanoGPT's README) or less.
GPU_FEATURES := llmasos-drivers/cuda,llmasos-train/cuda
gpu-check: prepare ## builds and tests drivers and training with CUDA on a machine that has it, and trains there
	@command -v nvcc >/dev/null || { echo "gpu-check: no nvcc on this machine; install the CUDA toolkit" >&2; exit 1; }
	$(CARGO_CC) build --release --workspace --bins --locked --features $(GPU_FEATURES) --target-dir target/cuda
	$(CARGO_CC) test --release --workspace --locked --features $(GPU_FEATURES) --target-dir target/cuda
	$(CARGO_CC) build --release --locked -p llmasos-train --example speed --features cuda --target-dir target/cuda
	@python=""; if $(PYTHON) -c 'import torch' 2>/dev/null; then python="--python $(PYTHON)"; fi; \
	target/cuda/release/examples/speed --cuda 0 $$python
	@out=$$(mktemp -d); target/cuda/release/llmasos-trainer run drivers/train/specs/shakespeare-gpu.ron --alone --quiet \
	--set out=$$out/run --set 'data.train={"Text":["$(TEXT)"]}' --set evaluation.batches=null --set samples.every=0 \
	&& grep '"evaluation"' $$out/run/log.jsonl | $(PYTHON) -c 'import json, sys; \
	least = min(json.loads(line)["loss"] for line in sys.stdin); print(f"gpu-check: validation loss {least:.4f}, wanted 1.47"); \
	sys.exit(least > 1.475)'; done=$$?; rm -r $$out; exit $$done

# MPICC=mpicc.mpich MPIRUN=mpirun.mpich takes MPICH where both are there, after `cargo clean -p mpi-sys`.
mpi-check: ## builds the trainer with MPI, and trains under mpirun, over two network namespaces and under srun (these as root)
	@kernel/dist/prepare --mpi
	$(CARGO_CC) test --release --locked -p llmasos-train --features mpi --test trainer -- mpi ranks
	@if [ "$$(id -u)" = 0 ] && $${MPIRUN:-mpirun} --version | grep -q "Open MPI"; then drivers/train/tests/two-hosts $(BIN)/llmasos-trainer && \
	drivers/train/tests/one-node-slurm $(BIN)/llmasos-trainer; fi

# PREFIX is where programs go, DESTDIR stands before every path.
PREFIX ?= /usr/local
export PREFIX DESTDIR

install: ## installs what was built, with units, manuals and completions
	@kernel/dist/install $(BIN)

uninstall: ## removes what was installed; the configuration and the data stay
	@kernel/dist/install --remove

deb: portable ## makes a Debian package for any machine, in target/deb
	@kernel/dist/deb target/portable/release target/deb

check-systemd: deb ## installs the package on a Debian with systemd as process 1, in QEMU, and uses it
	@kernel/dist/check-systemd target/deb/*.deb

clean: ## removes what was built
	$(CARGO) clean
