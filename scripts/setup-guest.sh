#!/usr/bin/env bash
# Makes the small Linux guest that scripts/try-guests.ts boots, from the distribution's packages: a kernel,
# and an initial file system that runs one command and powers off. The command is /command in a second
# archive behind the first; its output, and a last line with its status, go to the second serial port.
# With root=/dev/… on the kernel's command line it goes on with that disk's own /init instead.
#
#     bash scripts/setup-guest.sh FOLDER
#
# Safe to run again; needs root and network only where something is missing.
set -euo pipefail
folder=$1
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
export PATH="$PATH:/usr/sbin:/sbin"
export DEBIAN_FRONTEND=noninteractive

needed=()
command -v qemu-system-x86_64 >/dev/null || needed+=(qemu-system-x86)
command -v cpio >/dev/null || needed+=(cpio)
command -v depmod >/dev/null || needed+=(kmod)
command -v nbd-client >/dev/null || needed+=(nbd-client)
[ -x /usr/bin/busybox ] || [ -x /bin/busybox ] || needed+=(busybox-static)
command -v grub-mkimage >/dev/null || needed+=(grub-common)
[ -e /usr/lib/grub/i386-pc/boot.img ] || needed+=(grub-pc-bin)
command -v sfdisk >/dev/null || needed+=(fdisk)
if [ ${#needed[@]} -gt 0 ]; then
  apt-cache show "${needed[0]}" >/dev/null 2>&1 || apt-get update -q
  . /etc/os-release
  # As new as the tools beside it, where the release itself is older.
  suite=()
  # Read to its end: a pipe that is closed early would count as a failure.
  policy=$(apt-cache policy qemu-system-x86)
  if [[ $policy == *"${VERSION_CODENAME}-backports"* ]]; then
    suite=(-t "${VERSION_CODENAME}-backports")
  fi
  apt-get install -y -q --no-install-recommends "${suite[@]}" "${needed[@]}"
fi
[ -e "$folder/initrd" ] && [ -e "$folder/kernel" ] && exit 0

apt-cache show linux-image-cloud-amd64 >/dev/null 2>&1 || apt-get update -q
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-[0-9]/ { print $2; exit }')
(cd "$work" && apt-get download "$package")
dpkg -x "$work"/linux-image-*.deb "$work/kernel"
version=$(ls "$work/kernel/lib/modules")
depmod -b "$work/kernel" "$version"

root=$work/root
mkdir -p "$root"/{bin,sbin,dev,proc,sys,tmp,mnt,disk,lib/modules,usr/lib}
busybox=$(command -v busybox)
cp "$busybox" "$root/bin/busybox"
for name in $("$busybox" --list); do
  [ "$name" = busybox ] || ln -sf busybox "$root/bin/$name"
done
for program in mke2fs e2fsck nbd-client; do
  path=$(command -v "$program")
  rm -f "$root/bin/$program"
  cp -L "$path" "$root/bin/$program"
  for library in $(ldd "$path" | grep -oE '/[^ ]+'); do
    mkdir -p "$root$(dirname "$library")"
    cp -Ln "$library" "$root$library" || true
  done
done
ln -sf mke2fs "$root/bin/mkfs.ext4"

# In the order in which they are loaded.
for module in virtio_pci virtio_blk ext4 nbd virtio_net; do
  modprobe -d "$work/kernel" -S "$version" --show-depends "$module" 2>/dev/null |
    awk '$1 == "insmod" { print $2 }' || true
done | awk '!seen[$0]++' >"$work/modules"
while read -r file; do
  name=$(basename "$file")
  case $name in
    *.xz) xz -dc "$file" >"$root/lib/modules/${name%.xz}" ;;
    *.zst) zstd -dcq "$file" >"$root/lib/modules/${name%.zst}" ;;
    *) cp "$file" "$root/lib/modules/" ;;
  esac
  basename "$file" | sed 's/\.xz$//; s/\.zst$//' >>"$root/lib/modules/order"
done <"$work/modules"

cat >"$root/init" <<'INIT'
#!/bin/sh
export PATH=/bin:/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /tmp
disk=$(sed -n 's/.*root=\([^ ]*\).*/\1/p' /proc/cmdline)
if [ ! -e /is-on-disk ]; then
  while read -r module; do insmod "/lib/modules/$module" 2>/tmp/insmod; done </lib/modules/order
  if [ -n "$disk" ]; then
    mount "$disk" /disk && exec switch_root /disk /init
  fi
fi
ip link set lo up
if [ -e /sys/class/net/eth0 ]; then
  ip addr add 10.0.2.15/24 dev eth0
  ip link set eth0 up
fi
stty -F /dev/ttyS1 -onlcr
{
  sh /command </dev/null
  printf '\nstatus %s\n' "$?"
} >/dev/ttyS1 2>&1
sync
poweroff -f
INIT
chmod +x "$root/init"
(cd "$root" && find . | cpio -o -H newc -R 0:0 --quiet) >"$folder/initrd.new"
cp "$work"/kernel/boot/vmlinuz-* "$folder/kernel"
rm -rf "$folder/root"
cp -a "$root" "$folder/root"
mv "$folder/initrd.new" "$folder/initrd"
