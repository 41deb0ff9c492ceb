# Sourced by tools/quickstart and tools/test: install what is missing, build the program.
# Everything is written below build/; it can be run any number of times.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1

needed=(gcc libc6-dev meson ninja-build pkg-config libhdf5-dev libzstd-dev zlib1g-dev libjansson-dev libutf8proc-dev
        libxxhash-dev libssl-dev libcmocka-dev zstd xz-utils python3)
# What the program can do without, and what is lost then.
optional=(libopenmpi-dev openmpi-bin libdnnl-dev)

say() { printf '%s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

missing() {
    local package
    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || printf '%s ' "$package"
    done
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

may_install() {
    command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }
}

# install_packages PACKAGE...: those of the lists above and the arguments that are missing.
install_packages() {
    local want
    want=$(missing "${needed[@]}" "${optional[@]}" "$@")
    [ -n "$want" ] || return 0
    if may_install; then
        say "installing with apt: $want"
        as_root apt-get update -q >build/apt.log 2>&1 || say "apt-get update failed (build/apt.log); trying with the lists that are there"
        # shellcheck disable=SC2086
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $want >>build/apt.log 2>&1 ||
            say "apt-get install failed (build/apt.log)"
    fi
    want=$(missing "${needed[@]}")
    [ -z "$want" ] || die "missing packages; as root, run: apt-get install --no-install-recommends $want"
    want=$(missing "${optional[@]}" "$@")
    [ -z "$want" ] || say "without $want: what needs them is left out (MPI: one process only; oneDNN: the core's own matrix kernels)"
}

# build_program DIRECTORY [MESON OPTION...]
build_program() {
    local dir=$1
    shift
    if [ ! -f "$dir/build.ninja" ]; then
        meson setup "$dir" "$@" >"$dir.setup.log" 2>&1 || { tail -20 "$dir.setup.log" >&2; die "meson setup failed: $dir.setup.log"; }
    fi
    ninja -C "$dir" >"$dir.build.log" 2>&1 || { grep -E 'error|FAILED' -A3 "$dir.build.log" | head -40 >&2; die "the build failed: $dir.build.log"; }
}

mkdir -p build

# Open MPI refuses root and more ranks than processors unless told.
if [ "$(id -u)" = 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
export OMPI_MCA_rmaps_base_oversubscribe=1
