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

/** Boots a guest, without the processor's own help, which not every machine has to give. */
export async function runGuest(options: GuestOptions): Promise<GuestResult> {
  const { parts, command, devices, root, processors = 2, seconds = 240 } = options;
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
  const append = [
    'console=ttyS0 quiet panic=-1 no_timer_check mitigations=off random.trust_cpu=on',
    // Memory that a back-end has written to behind QEMU's back is then not taken for code of old.
    'init_on_alloc=1',
    ...(root === undefined ? [] : [`root=${root}`]),
  ].join(' ');
  const child = spawn(
    'qemu-system-x86_64',
    [
      ...['-nodefaults', '-no-user-config', '-machine', 'q35,memory-backend=memory'],
      ...['-object', 'memory-backend-memfd,id=memory,size=512M,share=on', '-m', '512M'],
      ...['-accel', 'tcg,thread=multi', '-cpu', 'max', '-smp', String(processors)],
      ...['-display', 'none', '-no-reboot'],
      ...['-chardev', 'file,id=log,path=log', '-serial', 'chardev:log'],
      ...['-chardev', 'file,id=output,path=output', '-serial', 'chardev:output'],
      ...['-kernel', path.join(parts, 'kernel'), '-initrd', 'initrd', '-append', append],
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
  const root = path.join(folder, 'root');
  await cp(path.join(parts, 'root'), root, { recursive: true, verbatimSymlinks: true });
  await writeFile(path.join(root, 'command'), `${command}\n`);
  await writeFile(path.join(root, 'is-on-disk'), '');
  const disk = path.join(folder, 'system.raw');
  await runOk('sh', [
    '-c',
    `PATH=$PATH:/sbin:/usr/sbin; mke2fs -q -t ext4 -d ${root} ${disk} 256M`,
  ]);
  await rm(root, { recursive: true });
  return disk;
}
