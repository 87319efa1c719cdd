#!/usr/bin/env bash
# Unpacks the newest QEMU, libblkio and libnbd of the distribution's unstable suite into a folder, without
# installing them: FOLDER/bin has a command for each program.
#
#     bash scripts/setup-newest-peers.sh FOLDER
#
# Safe to run again; needs the distribution's apt and network only where something is missing.
set -euo pipefail
folder=$1
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
[ -x "$folder/bin/qemu-io" ] && exit 0

mirror=$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -1)
if [ -z "$mirror" ]; then
  echo 'no archive of Debian is configured here' >&2
  exit 1
fi
keys=/usr/share/keyrings/debian-archive-keyring.gpg
apt=$folder/apt
rm -rf "$apt"
mkdir -p "$apt"/{lists/partial,archives/partial,etc}
echo "deb [signed-by=$keys] $mirror sid main" >"$apt/etc/sources.list"
: >"$apt/status"
options=(
  -o "Dir::Etc::SourceList=$apt/etc/sources.list" -o Dir::Etc::SourceParts=-
  -o "Dir::State::Lists=$apt/lists" -o "Dir::State::status=$apt/status"
  -o "Dir::Cache=$apt" -o Dir::Cache::Archives=archives
  -o Acquire::Languages=none -o Acquire::Check-Valid-Until=false -o APT::Sandbox::User=root
  -o Debug::NoLocking=true -o APT::Install-Recommends=false
)
apt-get "${options[@]}" update -q
apt-get "${options[@]}" install -y -q --download-only \
  qemu-utils qemu-system-x86 qemu-block-extra libblkio1 libnbd-bin nbdkit
root=$folder/root
rm -rf "$root"
mkdir -p "$root"
for package in "$apt"/archives/*.deb; do dpkg -x "$package" "$root"; done
rm -rf "$apt"

mkdir -p "$folder/bin"
for program in qemu-img qemu-io qemu-system-x86_64 qemu-storage-daemon nbdinfo nbdcopy; do
  [ -e "$root/usr/bin/$program" ] || continue
  more=
  [ "$program" != qemu-system-x86_64 ] || more="-L $root/usr/share/qemu -L $root/usr/share/seabios"
  cat >"$folder/bin/$program.new" <<RUN
#!/bin/sh
export QEMU_MODULE_DIR=$root/usr/lib/x86_64-linux-gnu/qemu
exec $root/usr/lib64/ld-linux-x86-64.so.2 --argv0 "\$0" \\
  --library-path $root/usr/lib/x86_64-linux-gnu:$root/usr/lib $root/usr/bin/$program $more "\$@"
RUN
  chmod +x "$folder/bin/$program.new"
done
# What is looked for above comes last.
for program in "$folder"/bin/*.new; do [ "$program" = "$folder/bin/qemu-io.new" ] || mv "$program" "${program%.new}"; done
mv "$folder/bin/qemu-io.new" "$folder/bin/qemu-io"
