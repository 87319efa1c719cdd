/** A small Linux guest that runs one command; see scripts/setup-guest.sh. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { runOk } from './tools.js';

/** How a guest is started. */
export interface GuestOptions {
  /** Folder that scripts/setup-guest.sh has filled. */
  readonly parts: string;
  /** Folder for what is made. */
  readonly folder: string;
  /** What `sh` runs in the guest. */
  readonly command: string;
  /** QEMU's arguments beside those of every guest: its disks. */
  readonly devices: readonly string[];
  /** The disk whose own system it goes on with. */
  readonly root?: string;
  /** It is left to the firmware to find a system on the disks; `command` is then the disk's own. */
  readonly fromFirmware?: boolean;
  /** QEMU, by default the one that is installed. */
  readonly qemu?: string;
  readonly processors?: number;
  readonly seconds?: number;
}

/** What a guest has said. */
export interface GuestResult {
  /** Of its command; undefined if it did not come to its end. */
  readonly status: number | undefined;
  readonly output: string;
  /** What its kernel said, and QEMU. */
  readonly log: string;
}

/** The kernel's own words. */
const kernelWords = [
  'console=ttyS0 quiet panic=-1 no_timer_check mitigations=off random.trust_cpu=on',
  // Memory that a back-end has written to behind QEMU's back is then not taken for code of old.
  'init_on_alloc=1',
].join(' ');

/** Boots a guest, without the processor's own help, which not every machine has to give. */
export async function runGuest(options: GuestOptions): Promise<GuestResult> {
  const { parts, command, devices, root, processors = 2, seconds = 240 } = options;
  const { fromFirmware = false, qemu = 'qemu-system-x86_64' } = options;
  const folder = await mkdtemp(path.join(options.folder, 'guest-'));
  await mkdir(path.join(folder, 'more'));
  await writeFile(path.join(folder, 'more', 'command'), `${command}\n`);
  const pack = 'cd more && echo command | cpio -o -H newc -R 0:0 --quiet > ../more.cpio';
  await runOk('sh', ['-c', pack], { cwd: folder });
  const initrd = [await readFile(path.join(parts, 'initrd'))];
  // Archives begin at multiples of four bytes.
  initrd.push(Buffer.alloc((4 - (initrd[0].length % 4)) % 4));
  initrd.push(await readFile(path.join(folder, 'more.cpio')));
  await writeFile(path.join(folder, 'initrd'), Buffer.concat(initrd));
  const append = [kernelWords, ...(root === undefined ? [] : [`root=${root}`])].join(' ');
  const kernel = ['-kernel', path.join(parts, 'kernel'), '-initrd', 'initrd', '-append', append];
  const child = spawn(
    qemu,
    [
      ...['-nodefaults', '-no-user-config', '-machine', 'q35,memory-backend=memory'],
      ...['-object', 'memory-backend-memfd,id=memory,size=512M,share=on', '-m', '512M'],
      ...['-accel', 'tcg,thread=multi', '-cpu', 'max', '-smp', String(processors)],
      ...['-display', 'none', '-no-reboot'],
      ...['-chardev', 'file,id=log,path=log', '-serial', 'chardev:log'],
      ...['-chardev', 'file,id=output,path=output', '-serial', 'chardev:output'],
      ...(fromFirmware ? [] : kernel),
      ...devices,
    ],
    {
      cwd: folder,
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: seconds * 1000,
      killSignal: 'SIGKILL',
    },
  );
  let said = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => (said += chunk.toString()));
  }
  await once(child, 'close');
  const output = await readFile(path.join(folder, 'output'), 'utf8').catch(() => '');
  const log = await readFile(path.join(folder, 'log'), 'utf8').catch(() => '');
  await rm(folder, { recursive: true });
  const ended = /^status (\d+)$/m.exec(output);
  return {
    status: ended === null ? undefined : Number(ended[1]),
    output: output.replace(/\n*status \d+\n$/, ''),
    log: `${said}${log.slice(-2000)}`,
  };
}

/** Makes a raw disk with a system that runs a command, and goes on from it. */
export async function makeSystemDisk(
  parts: string,
  folder: string,
  command: string,
): Promise<string> {
  const root = await makeRoot(parts, folder, command);
  const disk = path.join(folder, 'system.raw');
  await runShell(`mke2fs -q -t ext4 -d ${root} ${disk} 256M`);
  await rm(root, { recursive: true });
  return disk;
}

/**
 * Makes a raw disk that a PC's firmware boots: GRUB before the first partition, a kernel and a system that
 * runs a command in it.
 */
export async function makeBootDisk(
  parts: string,
  folder: string,
  command: string,
): Promise<string> {
  const root = await makeRoot(parts, folder, command);
  await mkdir(path.join(root, 'boot'));
  for (const name of ['kernel', 'initrd']) {
    await cp(path.join(parts, name), path.join(root, 'boot', name));
  }
  const settings = path.join(folder, 'grub.cfg');
  await writeFile(
    settings,
    [
      'serial --unit=0 --speed=115200',
      'terminal_output serial',
      `linux (hd0,msdos1)/boot/kernel ${kernelWords} root=/dev/vda1`,
      'initrd (hd0,msdos1)/boot/initrd',
      'boot\n',
    ].join('\n'),
  );
  const disk = path.join(folder, 'boot.raw');
  const [core, partition] = [`${disk}.core`, `${disk}.part`];
  const modules = 'biosdisk part_msdos ext2 linux serial terminal boot normal';
  await runShell(`
    set -e
    grub-mkimage -O i386-pc -p '(hd0,msdos1)/boot' -c ${settings} -o ${core} ${modules}
    mke2fs -q -t ext4 -O ^metadata_csum,^64bit -d ${root} ${partition} 320M
    truncate -s 322M ${disk}
    printf 'label: dos\\nstart=1MiB, size=320MiB, type=83, bootable\\n' | sfdisk -q ${disk}
    dd if=/usr/lib/grub/i386-pc/boot.img of=${disk} bs=440 count=1 conv=notrunc status=none
    dd if=${core} of=${disk} bs=512 seek=1 conv=notrunc status=none
    dd if=${partition} of=${disk} bs=1M seek=1 conv=notrunc,sparse status=none
    rm ${core} ${partition}`);
  await rm(root, { recursive: true });
  return disk;
}

async function makeRoot(parts: string, folder: string, command: string): Promise<string> {
  const root = path.join(folder, 'root');
  await cp(path.join(parts, 'root'), root, { recursive: true, verbatimSymlinks: true });
  await writeFile(path.join(root, 'command'), `${command}\n`);
  await writeFile(path.join(root, 'is-on-disk'), '');
  return root;
}

async function runShell(script: string): Promise<void> {
  await runOk('sh', ['-c', `PATH=$PATH:/sbin:/usr/sbin; ${script}`]);
}
