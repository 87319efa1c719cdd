/** Clients that others wrote, on a served image: libnbd's tools, fio, QEMU's. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { serve } from '../../../src/export/serve.js';
import { createImage } from '../../../src/image/graph/create.js';
import { openImage } from '../../../src/image/graph/open.js';
import { needsTool, run, runOk, temporaryFolder } from '../../support/tools.js';

const mebi = 1024 * 1024;

interface Served {
  readonly folder: string;
  readonly file: string;
  readonly uri: string;
  readonly end: () => Promise<void>;
}

async function serveImage(t: TestContext, size = 64 * mebi): Promise<Served> {
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk.qcow2');
  await createImage(file, { format: 'qcow2', size });
  const image = await openImage(file);
  const socket = path.join(folder, 's');
  const server = await serve([{ image, name: 'disk', description: 'a disk of ours' }], {
    nbd: `unix:${socket}`,
    workers: 2,
    onProblem: (why) => {
      assert.fail(why);
    },
  });
  let ended: Promise<void> | undefined;
  const end = (): Promise<void> => (ended ??= server.close().finally(() => image.close()));
  t.after(end);
  return { folder, file, uri: `nbd+unix:///disk?socket=${socket}`, end };
}

test('nbdinfo tells what the export is', async (t) => {
  if (!needsTool(t, 'nbdinfo')) return;
  const { uri, file, end } = await serveImage(t);
  const told = JSON.parse(await runOk('nbdinfo', ['--json', uri])) as {
    exports: Record<string, unknown>[];
  };
  const [{ contexts, ...facts }] = told.exports;
  assert.deepEqual(contexts, ['base:allocation', 'qemu:allocation-depth']);
  const expected: Readonly<Record<string, unknown>> = {
    'export-name': 'disk',
    description: 'a disk of ours',
    'export-size': 64 * mebi,
    is_read_only: false,
    can_cache: true,
    can_fast_zero: true,
    can_flush: true,
    can_fua: true,
    can_multi_conn: true,
    can_trim: true,
    can_zero: true,
    block_size_minimum: 1,
    block_size_preferred: 4096,
    block_size_maximum: 32 * mebi,
  };
  for (const [name, value] of Object.entries(expected)) assert.deepEqual(facts[name], value, name);
  assert.match(await runOk('nbdinfo', ['--list', uri]), /export="disk"/);
  assert.match(await runOk('nbdinfo', ['--map', uri]), /^ *0 +67108864 +3 +hole,zero$/m);
  const depth = await runOk('nbdinfo', ['--map=qemu:allocation-depth', uri]);
  assert.match(depth, /^ *0 +67108864 +0 +(unallocated|absent)$/m);
  const unknown = await run('nbdinfo', [uri.replace('/disk?', '/other?')]);
  assert.notEqual(unknown.code, 0);
  assert.match(unknown.stderr, /^nbdinfo: [^\n]*export/);
  await end();
  await runOk('qemu-img', ['check', file]);
});

test('nbdcopy copies in and out through four connections', async (t) => {
  if (!needsTool(t, 'nbdcopy') || !needsTool(t, 'qemu-img')) return;
  const { uri, folder, file, end } = await serveImage(t);
  const source = path.join(folder, 'source.raw');
  const bytes = Buffer.alloc(64 * mebi);
  for (let at = 0; at < bytes.length; at += 3 * mebi + 4096) {
    bytes.fill(at >> 12, at, Math.min(at + mebi, bytes.length));
  }
  await writeFile(source, bytes);
  await runOk('nbdcopy', ['--connections=4', '--flush', source, uri]);
  await runOk('nbdcopy', ['--connections=4', uri, path.join(folder, 'copy.raw')]);
  await runOk('cmp', [source, path.join(folder, 'copy.raw')]);
  await runOk('nbdcopy', ['--connections=4', '--destination-is-zero', uri, 'null:']);
  await end();
  await runOk('qemu-img', ['check', file]);
  await runOk('qemu-img', ['compare', '-F', 'qcow2', '-f', 'raw', source, file]);
});

test('nbdsh: every request, and what is refused', async (t) => {
  if (!needsTool(t, 'nbdsh')) return;
  const { uri, file, end } = await serveImage(t);
  const script = `
h.add_meta_context("base:allocation")
h.connect_uri("${uri}")
assert h.get_size() == 67108864
h.pwrite(b"x" * 100000, 12345)
assert h.pread(100000, 12345) == bytearray(b"x" * 100000)
h.zero(65536, 0, nbd.CMD_FLAG_NO_HOLE)
h.zero(65536, 65536, nbd.CMD_FLAG_FAST_ZERO)
h.trim(65536, 1048576)
h.cache(1048576, 0)
h.pwrite(b"y" * 512, 512, nbd.CMD_FLAG_FUA)
h.flush()
entries = []
h.block_status(67108864, 0, lambda name, offset, e, err: entries.extend(e))
assert sum(entries[0::2]) == 67108864, entries
h.set_strict_mode(0)
def refused(f, number):
    try:
        f()
    except nbd.Error as error:
        assert error.errnum == number, error
    else:
        raise AssertionError("not refused")
refused(lambda: h.pread(512, 67108864), 22)
refused(lambda: h.pwrite(b"z", 67108864), 28)
refused(lambda: h.zero(2, 67108863), 28)
buffers = [nbd.Buffer.from_bytearray(bytearray(bytes([i]) * 8192)) for i in range(64)]
cookies = [h.aio_pwrite(b, i * 10000) for i, b in enumerate(buffers)]
while h.aio_in_flight() > 0:
    h.poll(-1)
for i in range(64):
    assert h.pread(8192, i * 10000) == bytearray(bytes([i]) * 8192), i
h.shutdown()
`;
  // It needs the system's own Python.
  const search = `/usr/bin:/bin:${process.env['PATH'] ?? ''}`;
  await runOk('nbdsh', ['-c', script], { env: { PATH: search } });
  await end();
  await runOk('qemu-img', ['check', file]);
});

test('fio verifies what it wrote through several connections', async (t) => {
  if (!needsTool(t, 'fio') || !needsTool(t, 'qemu-img')) return;
  const { uri, file, folder, end } = await serveImage(t);
  await runOk(
    'fio',
    [
      ...['--name=verify', '--ioengine=nbd', `--uri=${uri}`, '--rw=randrw', '--bs=4k,512-64k'],
      ...['--iodepth=32', '--numjobs=4', '--thread', '--size=16m', '--offset_increment=16m'],
      ...['--verify=crc32c', '--do_verify=1', '--verify_fatal=1', '--fsync=100'],
    ],
    { cwd: folder },
  );
  await end();
  await runOk('qemu-img', ['check', file]);
});

test('a file system on a served image, copied in by QEMU, is whole', async (t) => {
  if (!needsTool(t, 'qemu-img', 'mkfs.ext4', 'e2fsck')) return;
  const { uri, folder, file, end } = await serveImage(t);
  const disk = path.join(folder, 'fs.raw');
  await writeFile(disk, '');
  await runOk('mkfs.ext4', ['-q', disk, '64M']);
  await runOk('qemu-img', ['convert', '-n', '-W', '-m', '16', '-f', 'raw', '-O', 'raw', disk, uri]);
  await end();
  await runOk('qemu-img', ['convert', '-O', 'raw', file, path.join(folder, 'back.raw')]);
  await runOk('e2fsck', ['-fn', path.join(folder, 'back.raw')]);
});

test('a persistent bitmap says what has changed, as QEMU’s server says it', async (t) => {
  if (!needsTool(t, 'nbdinfo', 'qemu-img', 'qemu-io', 'qemu-nbd')) return;
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk.qcow2');
  for (const [granularity, size] of [
    ['65536', '200M'],
    ['512', '70M'],
    ['4096', '3G'],
  ]) {
    await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', file, size]);
    await runOk('qemu-img', ['bitmap', '--add', '-g', granularity, file, 'since']);
    await runOk('qemu-io', [
      ...['-c', 'write 0 512', '-c', 'write 1M 200k', '-c', 'write 33000k 3M'],
      ...['-c', 'write -z 60M 1M', '-c', 'write 71679k 1k', file],
    ]);
    const maps: string[] = [];
    const image = await openImage(file, { readOnly: true });
    const socket = path.join(folder, 'ours');
    const server = await serve([{ image, bitmaps: ['since'] }], { nbd: `unix:${socket}` });
    const map = '--map=qemu:dirty-bitmap:since';
    maps.push(await runOk('nbdinfo', ['--json', map, `nbd+unix:///?socket=${socket}`]));
    await server.close();
    await image.close();
    const peer = path.join(folder, 'theirs');
    const start = `qemu-nbd -r -B since -k ${peer} ${file} & while ! [ -S ${peer} ]; do sleep 0.02; done; nbdinfo --json ${map} 'nbd+unix:///?socket=${peer}'; wait`;
    maps.push(await runOk('sh', ['-c', start]));
    const [ours, theirs] = maps.map((text) => joined(JSON.parse(text) as MapEntry[]));
    assert.deepEqual(ours, theirs);
    assert.ok(ours.length > 5);
  }
  const writable = await openImage(file);
  t.after(() => writable.close());
  const socket = path.join(folder, 'writable');
  const server = await serve([{ image: writable, bitmaps: ['since'] }], { nbd: `unix:${socket}` });
  t.after(() => server.close());
  await writable.write(new Uint8Array(512), 40_000_000);
  const map = '--map=qemu:dirty-bitmap:since';
  const now = await runOk('nbdinfo', ['--json', map, `nbd+unix:///?socket=${socket}`]);
  const at = Math.floor(40_000_000 / 4096) * 4096;
  assert.ok(
    joined(JSON.parse(now) as MapEntry[]).some(([start, type]) => start === at && type === 1),
  );
});

interface MapEntry {
  readonly offset: number;
  readonly length: number;
  readonly type: number;
}

/** Neighbours of one type as one: servers may cut where they like. */
function joined(entries: readonly MapEntry[]): (readonly [number, number])[] {
  const starts = entries.filter(({ type }, index) => type !== entries[index - 1]?.type);
  return starts.map(({ offset, type }) => [offset, type]);
}
