# The two commands that do everything on a fresh Debian or Ubuntu machine:
#   make demo   build, run the main job, leave nothing behind
#   make test   everything that CI runs, with all its set-up

RUSTUP = curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh
PROGRAMS = --package dyno --package dyno-hostd --package dyno-runtime --package dyno-images --package dyno-edge
RELEASE = target/x86_64-unknown-linux-gnu/release

.PHONY: demo test bench soak fuzz dist release toolchain

demo: PROGRAMS += --package dyno-example-web
demo: release
	@examples/demo.sh $(RELEASE)

# A machine that is too slow for all kernel-facing tests in virtual machines says
# how many it left out.
test: toolchain
	@DYNO_VM_MINUTES=20 cargo xtask test

bench: toolchain
	@cargo xtask setup bench
	@cargo xtask bench

# What `make test` takes a sample of, in full.
soak: toolchain
	@cargo xtask setup test
	@DYNO_SOAK=1 DYNO_VM_ROUNDS=100 NEXTEST_PROFILE=soak cargo xtask test

# The bytes that others write, against a nightly compiler's libFuzzer.
fuzz: toolchain
	@cargo xtask fuzz

# A tarball and a Debian package, in target/dist.
dist: release
	@cargo xtask dist

release: toolchain
	@cargo build --release --bins $(PROGRAMS)

toolchain:
	@command -v cargo >/dev/null || { echo "The Rust toolchain is missing. This installs it:"; echo "  $(RUSTUP)"; exit 1; }
	@command -v cc >/dev/null && command -v protoc >/dev/null && test -e /usr/include/google/protobuf/descriptor.proto || { apt-get -q=2 update && DEBIAN_FRONTEND=noninteractive apt-get -q=2 install --yes --no-install-recommends gcc libc6-dev protobuf-compiler libprotobuf-dev; }
