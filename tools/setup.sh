# Sourced by tools/quickstart and tools/test: install what is missing, build the program.
# Everything is written below build/; it can be run any number of times.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1

needed=(gcc libc6-dev meson ninja-build pkg-config libhdf5-dev libzstd-dev zlib1g-dev libjansson-dev libutf8proc-dev
        libxxhash-dev libssl-dev libpcre2-dev libcmocka-dev zstd xz-utils python3)
# What the program can do without, and what is lost then.
optional=(libopenmpi-dev openmpi-bin libdnnl-dev libedit-dev)

say() { printf '%s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

missing() {
    local package
    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^.i' || printf '%s ' "$package"
    done
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

may_install() {
    command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }
}

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=60 "$@" >>build/apt.log 2>&1 ||
        say "apt-get install failed for: $* (build/apt.log)"
}

# install_packages PACKAGE...: those of the lists above and the arguments that are missing.
install_packages() {
    local need want
    need=$(missing "${needed[@]}")
    want=$(missing "${optional[@]}" "$@")
    if [ -n "$need$want" ] && may_install; then
        say "installing with apt: $need$want"
        as_root apt-get update -q >build/apt.log 2>&1 || say "apt-get update failed (build/apt.log); trying with the lists that are there"
        # shellcheck disable=SC2086
        [ -z "$need" ] || apt_install $need
        # shellcheck disable=SC2086
        [ -z "$want" ] || apt_install $want
        need=$(missing "${needed[@]}")
        want=$(missing "${optional[@]}" "$@")
    fi
    [ -z "$need" ] || die "missing packages; as root, run: apt-get install --no-install-recommends $need"
    [ -z "$want" ] || say "without $want: what needs them is left out (MPI: one process only; oneDNN: the core's own matrix kernels; libedit: no line editing)"
}

# build_program DIRECTORY [MESON OPTION...]: set up once, and again when optional packages have come or gone.
build_program() {
    local dir=$1 log=$1.log packages again=()
    shift
    packages=$(missing "${optional[@]}")
    if [ ! -f "$dir/build.ninja" ] || [ "$(cat "$dir.missing" 2>/dev/null)" != "$packages" ]; then
        [ ! -f "$dir/build.ninja" ] || again=(--reconfigure)
        meson setup "${again[@]}" "$dir" "$@" >"$log" 2>&1 || { tail -20 "$log" >&2; die "meson setup failed: $log"; }
        printf '%s' "$packages" >"$dir.missing"
    fi
    ninja -C "$dir" >"$log" 2>&1 || { grep -E 'error|FAILED' -A3 "$log" | head -40 >&2; die "the build failed: $log"; }
}

mkdir -p build

# Open MPI refuses root and more ranks than processors unless told.
if [ "$(id -u)" = 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
export OMPI_MCA_rmaps_base_oversubscribe=1
