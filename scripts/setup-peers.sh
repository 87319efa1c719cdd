#!/usr/bin/env bash
# Installs what the tests compare with: QEMU 10's own tools, taken from the distribution's
# backports where the release itself is older, e2fsprogs, xfsprogs, xz, zstd, bzip2, 7-Zip, libnbd's tools, nbdkit and fio.
# Safe to run again; a machine that has them already needs neither root nor network.
set -euo pipefail

has_reference() {
  [[ $(qemu-img --version 2>/dev/null) == *'version 1'[0-9]* ]] &&
    command -v qemu-io >/dev/null && command -v qemu-nbd >/dev/null
}
has_file_system_tools() {
  command -v mkfs.ext4 >/dev/null && command -v e2fsck >/dev/null && command -v mkfs.xfs >/dev/null
}
has_packers() {
  command -v xz >/dev/null && command -v zstd >/dev/null && command -v bzip2 >/dev/null &&
    command -v 7zz >/dev/null
}
has_nbd_clients() {
  command -v nbdinfo >/dev/null && command -v nbdcopy >/dev/null && command -v nbdsh >/dev/null &&
    command -v nbdkit >/dev/null && command -v fio >/dev/null
}
export PATH="$PATH:/usr/sbin:/sbin"
export DEBIAN_FRONTEND=noninteractive

if ! has_reference; then
  . /etc/os-release
  suite="${VERSION_CODENAME}-backports"
  list=/etc/apt/sources.list.d/cowherd-backports.sources
  main=$(grep -lE "^Suites:.*\\b${VERSION_CODENAME}\\b" /etc/apt/sources.list.d/*.sources | grep -v backports | head -n 1)
  # The distribution's own first stanza, pointed at its backports.
  awk -v suite="$suite" '/^$/ { exit } /^Suites:/ { print "Suites: " suite; next } { print }' "$main" >"$list"
  apt-get update -q
  apt-get install -y -q --no-install-recommends -t "$suite" qemu-utils
fi
if ! has_file_system_tools; then
  apt-get install -y -q --no-install-recommends e2fsprogs xfsprogs
fi
if ! has_packers; then
  apt-get install -y -q --no-install-recommends xz-utils zstd bzip2 7zip
fi
if ! has_nbd_clients; then
  apt-get install -y -q --no-install-recommends libnbd-bin python3-libnbd nbdkit fio
fi

qemu-img --version | head -n 1
