# The shared part of scripts/run and scripts/put: the list of packages, and the functions that build the plugins and put them into
# the plugins folder.

command -v cargo > /dev/null || { echo "cargo is missing, see https://rustup.rs" >&2; exit 1; }
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=$(realpath -m "${CARGO_TARGET_DIR:-$root/target}")
program=$target/debug/host

# What the quick start shows. The example of gRPC needs a compiler of its own for protocols.
plugins=(hello notes chat)

export HOST_PLUGINS=${HOST_PLUGINS:-$root/plugins}
export HOST_CONTROL=${HOST_CONTROL:-unix:$target/host.sock}

join() {
    local names
    names=$(printf ', %s' "$@")
    echo "${names:2}"
}

# All in one build: what they share is compiled once, and an edit compiles just what was edited.
build() {
    cargo build --manifest-path "$root/Cargo.toml" --target-dir "$target" --package host-server "${plugins[@]/#/--package=}"
}

# put PLUGIN: at once, so that a host that runs never sees a part of it.
put() {
    local library=lib${1//-/_}.so
    cp "$target/debug/$library" "$HOST_PLUGINS/.$library.$$"
    mv "$HOST_PLUGINS/.$library.$$" "$HOST_PLUGINS/$library"
}
