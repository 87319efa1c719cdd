/** Filters of files, named by lists of options and by JSON. */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { runCowherd } from '../support/both-tools.js';
import { cowherdProgram, needsTool, run, temporaryFolder } from '../support/tools.js';

/** A folder with a disk, raw and as qcow2. */
async function disks(t: TestContext): Promise<string> {
  const folder = await temporaryFolder(t);
  await writeFile(path.join(folder, 'disk.raw'), Buffer.alloc(1 << 20, 'filters'));
  const made = await runCowherd(['convert', '-O', 'qcow2', 'disk.raw', 'disk.qcow2'], folder);
  assert.equal(made.code, 0, made.stderr);
  return folder;
}

const json = (options: object): string => `json:${JSON.stringify(options)}`;
const node = { driver: 'file', filename: 'disk.qcow2' };

test('an image is read through the filters that are named, however deep', async (t) => {
  const folder = await disks(t);
  for (const [words, name] of [
    [['--image-opts'], 'driver=qcow2,file.driver=readahead,file.file.filename=disk.qcow2'],
    [['--image-opts'], 'file.driver=throttle,file.iops-read=100000,file.file.filename=disk.qcow2'],
    [
      ['--image-opts'],
      'driver=qcow2,file.driver=rate,file.bytes-per-second=1G,file.node-name=a,file.file.driver=readahead,file.file.window=1M,file.file.file.driver=file,file.file.file.filename=disk.qcow2',
    ],
    [['--image-opts'], 'driver=readahead,file.filename=disk.raw'],
    [[], json({ driver: 'qcow2', file: { driver: 'throttle', 'bps-total': 1e9, file: node } })],
    [['-f', 'qcow2'], json({ driver: 'qcow2', file: node })],
    [['--image-opts'], 'driver=readahead,file.driver=qcow2,file.file.filename=disk.qcow2'],
    [[], json({ driver: 'rate', 'bytes-per-second': '1G', file: { filename: 'disk.raw' } })],
    [[], json({ 'file.filename': 'disk.qcow2', driver: 'qcow2', 'read-only': true })],
  ] as const) {
    const read = await runCowherd(['convert', ...words, '-O', 'raw', name, 'out.raw'], folder);
    assert.deepEqual([name, read.stderr, read.code], [name, '', 0]);
    const [out, disk] = await Promise.all(
      ['out.raw', 'disk.raw'].map((each) => readFile(path.join(folder, each))),
    );
    assert.ok(out.equals(disk), name);
  }
});

test('each filter does what it is for', async (t) => {
  const folder = await disks(t);
  const traced = 'driver=qcow2,file.driver=trace,file.file.filename=disk.qcow2';
  // By itself, since it writes to the standard error of its process.
  const words = [cowherdProgram, 'map', '--image-opts', traced];
  const { stderr, code } = await run(process.execPath, words, { cwd: folder });
  assert.equal(code, 0);
  assert.match(stderr, /^(?:disk\.qcow2: [a-zA-Z]+ \d+\+\d+ \d+us ok\n)+$/);

  const failing = json({
    driver: 'qcow2',
    file: { driver: 'fault', operation: 'read', nth: 3, errno: 'ENXIO', always: true, file: node },
  });
  const failed = await runCowherd(['convert', '-O', 'raw', failing, 'out.raw'], folder);
  assert.equal(failed.code, 1);
  assert.match(failed.stderr, /^cowherd: [^\n]*No such device or address\n$/);

  const begunMs = performance.now();
  const slow = json({
    driver: 'rate',
    'bytes-per-second': '2M',
    burst: 1,
    file: { filename: 'disk.raw' },
  });
  assert.equal((await runCowherd(['compare', slow, 'disk.qcow2'], folder)).code, 0);
  assert.ok(performance.now() - begunMs >= 400, 'a mebibyte at two a second');

  const target = 'driver=qcow2,file.driver=trace,file.output=lines,file.file.filename=disk.qcow2';
  const converting = ['convert', '-n', '--target-image-opts', 'disk.raw', target];
  assert.equal((await runCowherd(converting, folder)).code, 0);
  assert.match(await readFile(path.join(folder, 'lines'), 'utf8'), /^disk\.qcow2: write /m);
  if (!needsTool(t, 'qemu-img')) return;
  assert.equal((await run('qemu-img', ['check', 'disk.qcow2'], { cwd: folder })).code, 0);
});

test('what is wrong is refused in one line that names the choices', async (t) => {
  const folder = await disks(t);
  for (const [list, reason] of [
    [
      'file.driver=rat,file.file.filename=disk.raw',
      /Unknown driver 'rat'; files have file, .*filters are trace, fault/,
    ],
    ['file.driver=rate,file.file.filename=disk.raw', /the filter 'rate' needs bytes-per-second/],
    [
      'file.driver=throttle,file.bps=5,file.file.filename=disk.raw',
      /the filter 'throttle' has no option 'bps'; it has iops-total, .* and bps-write-max/,
    ],
    ['driver=readahead,size=5,file.filename=disk.raw', /has no option 'size'; it has window/],
    [
      'file.driver=readahead,file.window=many,file.file.filename=disk.raw',
      /'file\.window' expects a size/,
    ],
    ['file.driver=readahead', /A block device must be specified for "file"/],
    [
      'driver=readahead,file.driver=qcow3,file.file.filename=disk.qcow2',
      /Unknown driver 'qcow3'; files have/,
    ],
    [
      'file.driver=throttle,file.bps-total=5,file.bps-read=5,file.file.filename=disk.raw',
      /bps-total and bps-read cannot be given together/,
    ],
    [
      'file.driver=trace,file.output=/absent/lines,file.file.filename=disk.raw',
      /Could not trace to '\/absent\/lines'/,
    ],
  ] as const) {
    const { code, stderr } = await runCowherd(['info', '--image-opts', list], folder);
    assert.equal(code, 1, list);
    assert.match(stderr, /^cowherd: Could not open '[^\n]+': [^\n]+\n$/);
    assert.match(stderr, reason);
  }
});
