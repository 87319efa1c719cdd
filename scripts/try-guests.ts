/**
 * Boots a small Linux guest from images that are served, and lets it do its worst:
 *
 *     npm run test:guests
 *
 * The guest is made by scripts/setup-guest.sh, from the distribution's packages, and kept. Where it cannot
 * be made, nothing is tried; with CI set that is a failure.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { makeSystemDisk, runGuest } from '../test/support/guest.js';
import { cowherdProgram, projectFolder, run, runOk } from '../test/support/tools.js';
import { readArguments } from './arguments.js';

readArguments('Boots a small Linux guest from images that are served. Needs the distribution.', {});

const parts = path.join(projectFolder, 'node_modules', '.cache', 'cowherd-guest');
const rounds = Number(process.env['COWHERD_TEST_RUNS'] ?? 2);
const gibi = 1024 ** 3;

async function setUp(): Promise<string | false> {
  const script = path.join(projectFolder, 'scripts', 'setup-guest.sh');
  const { code, stderr } = await run('bash', [script, parts], { timeoutMs: 600_000 });
  if (code === 0) return false;
  const why = `the guest cannot be made: ${stderr.trim().split('\n').at(-1) ?? ''}`;
  if (process.env['CI']) throw new Error(why);
  return why;
}

const skip = await setUp();
const parent = await mkdtemp(path.join(tmpdir(), 'cowherd-guests-'));
after(() => rm(parent, { recursive: true, force: true }));

interface Serving {
  readonly child: ChildProcess;
  readonly said: () => string;
}

async function serve(...words: readonly string[]): Promise<Serving> {
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
    const server = await serve('--vhost-user-blk', 'unix:t,queues=4', '--workers', '2', file);
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

test('a guest whose disk has packed queues', { skip }, async () => {
  const file = await newImage('packed.qcow2', gibi);
  const server = await serve('--vhost-user-blk', 'unix:p,queues=2,packed=on', file);
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
    const device = await serve('--vhost-user-blk', 'unix:s', file);
    const first = await runGuest({
      ...{ parts, folder: parent, command: 'false', root: '/dev/vda', devices: vhostUser('s', 2) },
    });
    assert.equal(first.status, 0, first.output + first.log);
    assert.doesNotMatch(first.output, /boot/);
    await end(device);
    const nbd = await serve('--nbd', 'unix:n', file);
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

test("the kernel's own NBD client, with several connections", { skip }, async () => {
  const file = await newImage('kernel.qcow2', gibi);
  const server = await serve('--nbd', 'tcp:127.0.0.1:10899', '--workers', '2', file);
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
  let server = await serve(...words);
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
    server = await serve(...words);
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
