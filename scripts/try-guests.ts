/**
 * Boots a small Linux guest from images that are served, and lets it do its worst:
 *
 *     npm run test:guests
 *
 * The guest is made by scripts/setup-guest.sh, from the distribution's packages, and kept; so are the newest
 * peers, by scripts/setup-newest-peers.sh. What cannot be made is not tried; with CI set that is a failure.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { serve } from '../src/export/serve.js';
import { openImage } from '../src/image/graph/open.js';
import { makeBootDisk, makeSystemDisk, runGuest } from '../test/support/guest.js';
import { cowherdProgram, projectFolder, run, runOk } from '../test/support/tools.js';
import { readArguments } from './arguments.js';

readArguments('Boots a small Linux guest from images that are served. Needs the distribution.', {});

const parts = path.join(projectFolder, 'node_modules', '.cache', 'cowherd-guest');
const newest = path.join(projectFolder, 'node_modules', '.cache', 'cowherd-newest-peers');
const rounds = Number(process.env['COWHERD_TEST_RUNS'] ?? 2);
const gibi = 1024 ** 3;

/** @returns why what a script makes is not there, if so */
async function setUp(script: string, folder: string): Promise<string | false> {
  const file = path.join(projectFolder, 'scripts', script);
  const { code, stderr } = await run('bash', [file, folder], { timeoutMs: 600_000 });
  if (code === 0) return false;
  const why = `${script} fails: ${stderr.trim().split('\n').at(-1) ?? ''}`;
  if (process.env['CI']) throw new Error(why);
  return why;
}

const skip = await setUp('setup-guest.sh', parts);
const withoutNewest = await setUp('setup-newest-peers.sh', newest);
const parent = await mkdtemp(path.join(tmpdir(), 'cowherd-guests-'));
after(() => rm(parent, { recursive: true, force: true }));

interface Serving {
  readonly child: ChildProcess;
  readonly said: () => string;
}

async function start(...words: readonly string[]): Promise<Serving> {
  const child = spawn(process.execPath, [cowherdProgram, 'serve', ...words], {
    cwd: parent,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()));
  after(() => child.kill('SIGKILL'));
  await Promise.race([
    once(child.stdout, 'data'),
    once(child, 'close').then(() => Promise.reject(new Error(`the server ended: ${said}`))),
  ]);
  return { child, said: () => said };
}

async function end({ child, said }: Serving): Promise<void> {
  const ended = once(child, 'close');
  child.kill('SIGTERM');
  assert.deepEqual(await ended, [0, null], said());
  assert.equal(said(), '');
}

async function newImage(name: string, size: number): Promise<string> {
  const file = path.join(parent, name);
  await runOk(process.execPath, [
    cowherdProgram,
    'create',
    '-q',
    '-f',
    'qcow2',
    file,
    String(size),
  ]);
  return file;
}

/** QEMU's arguments for a disk behind a vhost-user socket. @param more of the socket */
function vhostUser(socket: string, queues: number, more = ''): readonly string[] {
  return [
    ...['-chardev', `socket,id=c-${socket},path=${path.join(parent, socket)}${more}`],
    ...['-device', `vhost-user-blk-pci,chardev=c-${socket},num-queues=${queues}`],
  ];
}

/** Makes a file system, has four programs work in it at once, and looks at it again. */
const torture = `
set -e
/bin/mke2fs -q -t ext4 /dev/vda
mount /dev/vda /mnt
for worker in 1 2 3 4; do (
  set -e
  mkdir /mnt/$worker
  cd /mnt/$worker
  for turn in 1 2 3; do
    mkdir files
    cp -r /bin /lib /usr files
    dd if=/dev/urandom of=random bs=64k count=$((40 * worker)) 2>/tmp/dd$worker
    md5sum random >sum
    sync
    rm -r files
    fstrim /mnt || true
    echo 3 >/proc/sys/vm/drop_caches
    md5sum -c -s sum
  done
) & pids="$pids $!"; done
for pid in $pids; do wait $pid; done
cat /mnt/*/sum | wc -l
umount /mnt
/bin/e2fsck -fn /dev/vda >/tmp/fsck 2>&1 || { cat /tmp/fsck; exit 1; }
`;

for (let round = 1; round <= rounds; round++) {
  test(`four queues and four programs in a guest, ${round} of ${rounds}`, { skip }, async () => {
    const file = await newImage('torture.qcow2', gibi);
    const server = await start('--vhost-user-blk', 'unix:t,queues=4', '--workers', '2', file);
    const { status, output, log } = await runGuest({
      ...{ parts, folder: parent, processors: 4, devices: vhostUser('t', 4) },
      command: `ls /sys/block/vda/mq | wc -l; cat /sys/block/vda/queue/write_cache; ${torture}`,
    });
    assert.equal(status, 0, output + log);
    assert.equal(output.trim(), '4\nwrite back\n4');
    await end(server);
    await runOk('qemu-img', ['check', file]);
  });
}

test(
  'four queues and four programs, of the newest QEMU',
  { skip: skip || withoutNewest },
  async () => {
    const file = await newImage('newest.qcow2', gibi);
    const server = await start('--vhost-user-blk', 'unix:e,queues=4', '--workers', '2', file);
    const { status, output, log } = await runGuest({
      ...{ parts, folder: parent, processors: 4, command: torture, devices: vhostUser('e', 4) },
      qemu: path.join(newest, 'bin', 'qemu-system-x86_64'),
    });
    assert.equal(status, 0, output + log);
    await end(server);
    await runOk('qemu-img', ['check', file]);
  },
);

test('libblkio, which needs no guest', { skip: withoutNewest }, async () => {
  const file = await newImage('blkio.qcow2', gibi);
  const server = await start('--vhost-user-blk', 'unix:l,queues=2', '--workers', '2', file);
  const disk = `driver=virtio-blk-vhost-user,cache.direct=on,path=${path.join(parent, 'l')}`;
  const orders = [
    ...['write -P 5 1M 3M', 'flush', 'read -P 5 1M 3M', 'read -P 0 8M 1M', 'write -z 2M 1M'],
    ...[
      'read -P 0 2M 1M',
      'discard 3M 1M',
      'write -P 7 1073741312 512',
      'read -P 7 1073741312 512',
    ],
  ];
  const words = ['--image-opts', disk, ...orders.flatMap((order) => ['-c', order])];
  const stdout = await runOk(path.join(newest, 'bin', 'qemu-io'), words);
  assert.doesNotMatch(stdout, /verification failed|error/i);
  assert.equal([...stdout.matchAll(/^(read|wrote|discard)/gm)].length, 8, stdout);
  await end(server);
  await runOk('qemu-img', ['check', file]);
  await runOk('qemu-io', ['-c', 'read -P 5 1M 1M', '-c', 'read -P 7 1073741312 512', file]);
});

test(
  'the newest libnbd copies in and out, by several connections',
  { skip: withoutNewest },
  async () => {
    const [source, copy] = ['nbd-source', 'nbd-copy'].map((name) => path.join(parent, name));
    await writeFile(source, randomBytes(64 << 20));
    const file = await newImage('libnbd.qcow2', 64 << 20);
    const server = await start('--nbd', 'unix:c', '--workers', '2', file);
    const uri = `nbd+unix:///?socket=${path.join(parent, 'c')}`;
    const program = (name: string): string => path.join(newest, 'bin', name);
    const stdout = await runOk(program('nbdinfo'), [uri]);
    assert.match(stdout, /using extended packets/);
    await runOk(program('nbdcopy'), ['--connections=4', source, uri]);
    await runOk(program('nbdcopy'), ['--connections=4', uri, copy]);
    await runOk('cmp', [source, copy]);
    await end(server);
    await runOk('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', source, file]);
  },
);

test('a guest whose disk has packed queues', { skip }, async () => {
  const file = await newImage('packed.qcow2', gibi);
  const server = await start('--vhost-user-blk', 'unix:p,queues=2,packed=on', file);
  const { status, output, log } = await runGuest({
    ...{ parts, folder: parent, command: torture },
    devices: vhostUser('p', 2).map((word) =>
      word.startsWith('vhost') ? `${word},packed=on` : word,
    ),
  });
  assert.equal(status, 0, output + log);
  await end(server);
  await runOk('qemu-img', ['check', file]);
});

test(
  'a guest boots from its disk behind vhost-user, then from the same disk behind NBD',
  { skip },
  async () => {
    const system = await makeSystemDisk(
      parts,
      parent,
      'echo from $(cut -d" " -f1 /proc/mounts | head -1); cat /boots 2>/dev/null; echo boot >>/boots; sync',
    );
    const file = path.join(parent, 'system.qcow2');
    await runOk(process.execPath, [cowherdProgram, 'convert', '-O', 'qcow2', system, file]);
    const device = await start('--vhost-user-blk', 'unix:s', file);
    const first = await runGuest({
      ...{ parts, folder: parent, command: 'false', root: '/dev/vda', devices: vhostUser('s', 2) },
    });
    assert.equal(first.status, 0, first.output + first.log);
    assert.doesNotMatch(first.output, /boot/);
    await end(device);
    const nbd = await start('--nbd', 'unix:n', file);
    const disk = `driver=nbd,server.type=unix,server.path=${path.join(parent, 'n')},node-name=n`;
    const second = await runGuest({
      ...{ parts, folder: parent, command: 'false', root: '/dev/vda' },
      devices: ['-blockdev', disk, '-device', 'virtio-blk-pci,drive=n'],
    });
    assert.equal(second.status, 0, second.output + second.log);
    assert.match(second.output, /^boot$/m, 'what the first boot wrote is there');
    await end(nbd);
    await runOk('qemu-img', ['check', file]);
  },
);

for (const way of ['vhost-user', 'NBD']) {
  test(`firmware and boot loader find their way on a disk behind ${way}`, { skip }, async () => {
    const disk = await makeBootDisk(
      parts,
      parent,
      'echo from $(cut -d" " -f1 /proc/mounts | head -1); dd if=/dev/urandom of=/f bs=1M count=16 2>/tmp/dd && sync && md5sum </f >/sum && echo 3 >/proc/sys/vm/drop_caches && [ "$(md5sum </f)" = "$(cat /sum)" ] && echo read back',
    );
    const file = path.join(parent, `boot-${way}.qcow2`);
    await runOk(process.execPath, [cowherdProgram, 'convert', '-O', 'qcow2', disk, file]);
    const isGuests = way === 'vhost-user';
    const server = isGuests
      ? await start('--vhost-user-blk', 'unix:b,queues=4', '--workers', '2', file)
      : await start('--nbd', 'unix:b', file);
    const socket = path.join(parent, 'b');
    const node = `driver=nbd,server.type=unix,server.path=${socket},node-name=n`;
    const devices = isGuests
      ? vhostUser('b', 4).map((word) => (word.startsWith('vhost') ? `${word},bootindex=0` : word))
      : ['-blockdev', node, '-device', 'virtio-blk-pci,drive=n,bootindex=0'];
    const { status, output, log } = await runGuest({
      ...{ parts, folder: parent, command: 'false', fromFirmware: true, devices },
    });
    assert.equal(status, 0, output + log);
    assert.match(output, /^read back$/m);
    await end(server);
    await runOk('qemu-img', ['check', file]);
  });
}

test('a guest whose disk grows while it runs', { skip }, async () => {
  const file = await newImage('grown.qcow2', gibi);
  const image = await openImage(file);
  const server = await serve([{ image }], {
    vhostUserBlk: `unix:${path.join(parent, 'g')},queues=2`,
    workers: 1,
  });
  const guest = runGuest({
    ...{ parts, folder: parent, devices: vhostUser('g', 2) },
    command: `cat /sys/block/vda/size; for turn in $(seq 600); do
      [ "$(cat /sys/block/vda/size)" = 4194304 ] && break; sleep 0.1; done
      cat /sys/block/vda/size; ${torture}`,
  });
  await new Promise((resolve) => setTimeout(resolve, 12_000));
  await image.resize(2 * gibi);
  const { status, output, log } = await guest;
  await server.close();
  await image.close();
  assert.equal(status, 0, output + log);
  assert.match(output, /4194304\n4\n?$/);
  await runOk('qemu-img', ['check', file]);
});

test("the kernel's own NBD client, with several connections", { skip }, async () => {
  const file = await newImage('kernel.qcow2', gibi);
  const server = await start('--nbd', 'tcp:127.0.0.1:10899', '--workers', '2', file);
  const { status, output, log } = await runGuest({
    ...{ parts, folder: parent },
    command: `/bin/nbd-client -C 4 10.0.2.2 10899 /dev/nbd0 && ln -sf nbd0 /dev/vda && { ${torture} }; status=$?; /bin/nbd-client -d /dev/nbd0; exit $status`,
    devices: ['-netdev', 'user,id=n', '-device', 'virtio-net-pci,netdev=n,romfile='],
  });
  assert.equal(status, 0, output + log);
  await end(server);
  await runOk('qemu-img', ['check', file]);
});

test('a guest works on while its server is killed and started again', { skip }, async () => {
  const file = await newImage('killed.qcow2', gibi);
  const words = ['--vhost-user-blk', 'unix:k,queues=4', '--workers', '2', file];
  let server = await start(...words);
  const guestEnd = { isReached: false };
  const guest = runGuest({
    ...{ parts, folder: parent, processors: 4, command: torture },
    devices: vhostUser('k', 4, ',reconnect-ms=200'),
  }).finally(() => {
    guestEnd.isReached = true;
  });
  let killed = 0;
  for (let turn = 0; turn < 6; turn++) {
    await new Promise((resolve) => setTimeout(resolve, turn === 0 ? 6000 : 1200));
    if (guestEnd.isReached) break;
    const ended = once(server.child, 'close');
    server.child.kill('SIGKILL');
    await ended;
    server = await start(...words);
    killed += 1;
  }
  const { status, output, log } = await guest;
  assert.equal(status, 0, output + log);
  assert.ok(killed > 0, 'it was killed meanwhile');
  await end(server);
  // Clusters may be left that nothing refers to.
  const { code } = await run('qemu-img', ['check', file]);
  assert.ok(code === 0 || code === 3);
});
