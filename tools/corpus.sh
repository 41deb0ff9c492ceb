#!/usr/bin/env bash
# Freely usable text that Debian packages carry, sorted into DIR/text, DIR/code and DIR/best. No root is needed: packages are
# downloaded and unpacked, not installed.
# usage: tools/corpus.sh DIR [--small]    --small: three packages, about 7 MB, for a quick check
set -eu

dir=$1 small=${2-}
best=(jargon-text)
text=(debian-policy) code=(libpython3.11-minimal)
if [ -z "$small" ]; then
    best+=(debian-policy developers-reference)
    text=(perl-doc git-doc manpages)
    code=(libpython3.11-stdlib libpython3.11-minimal linux-libc-dev)
fi

mkdir -p "$dir/deb"
dir=$(cd "$dir" && pwd)

# fetch PACKAGE: download and unpack it below $dir/deb/PACKAGE, once.
fetch() {
    local package=$1 unpacked="$dir/deb/$1"
    [ -d "$unpacked" ] && return
    rm -f "$dir/deb/$package"_*.deb
    (cd "$dir/deb" && apt-get download -q "$package" >"$package.log" 2>&1) ||
        { cat "$dir/deb/$package.log" >&2; echo "error: cannot download Debian package $package (apt-get update may help, or use --corpus DIR)" >&2; exit 1; }
    rm -rf "$unpacked.tmp"
    dpkg -x "$dir/deb/$package"_*.deb "$unpacked.tmp"
    mv "$unpacked.tmp" "$unpacked"
}

# take KIND PACKAGE FIND-EXPRESSION...: copy matching files, unpacked, as DIR/KIND/PACKAGE/flat-name.
take() {
    local package=$2 to="$dir/$1/$2" file name
    shift 2
    fetch "$package"
    [ -d "$to" ] && return
    rm -rf "$to.tmp"
    mkdir -p "$to.tmp"
    (cd "$dir/deb/$package" && find . -type f "$@" | LC_ALL=C sort) | while IFS= read -r file; do
        name=$(printf '%s' "${file#./}" | tr '/' '_')
        case $file in
            *.gz) gzip -dc "$dir/deb/$package/$file" >"$to.tmp/${name%.gz}" ;;
            *) cp "$dir/deb/$package/$file" "$to.tmp/$name" ;;
        esac
    done
    mv "$to.tmp" "$to"
}

mkdir -p "$dir/best" "$dir/text" "$dir/code"
prose=(\( -path '*jargon.txt*' -o -name '*.txt.gz' \) ! -name 'upgrading-checklist*')
for package in "${best[@]}"; do
    take best "$package" "${prose[@]}"
done
for package in "${text[@]}"; do
    case $package in
        perl-doc) take text $package -name '*.pod*' ! -name '*perlcn*' ! -name '*perljp*' ! -name '*perlko*' ! -name '*perltw*' ;;
        git-doc) take text $package -name '*.txt*' ! -path '*/RelNotes/*' ;;
        debian-policy) take text $package "${prose[@]}" ;;
        manpages) take text $package -path '*/man/man*' ;;
    esac
done
for package in "${code[@]}"; do
    take code "$package" \( -name '*.py' -o -name '*.h' \)
done
