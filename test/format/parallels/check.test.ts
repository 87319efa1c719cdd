/** Checking and repairing Parallels images, as qemu-img does it; where that stops on damage, as it means to. */
import assert from 'node:assert/strict';
import { readFile, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { openImage } from '../../../src/image/graph/open.js';
import { needsTool, runOk, temporaryFolder } from '../../support/tools.js';
import { runCowherd } from '../../support/both-tools.js';
import { type CheckedFormat, assertChecks } from '../check-referee.js';
import { setNumber, writeByQemu } from '../vhdx/referee.js';

const mib = 1024 * 1024;
const parallels: CheckedFormat = {
  format: 'parallels',
  repairs: ['leaks', 'all'],
  sameFindings: true,
};
/** Host offset of a cluster's entry. */
const entryAt = (cluster: number): number => 64 + 4 * cluster;

/** An image whose clusters 0 and 4 have places 1 and 2. */
async function make(t: TestContext): Promise<string> {
  const file = path.join(await temporaryFolder(t), 'disk.hds');
  await runOk('qemu-img', ['create', '-q', '-f', 'parallels', file, '8M']);
  await writeByQemu(file, 'parallels', ['write -P 1 0 100k', 'write -P 2 4M 10k']);
  return file;
}

/** A change of a 32-bit number. */
function number(at: number, value: number): (bytes: Buffer) => undefined {
  return (bytes) => {
    setNumber(at, value, 'LE32')(bytes);
    return undefined;
  };
}

/** A change of the file's length, in bytes. */
function longer(bytes: Buffer, length: number): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(length)]);
}

test('damages that qemu-img finds', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  await assertChecks(await make(t), parallels, [
    { what: 'nothing', change: () => undefined },
    {
      what: 'an image that was not closed',
      change: number(44, 0x746f6e59),
      finds: ['ERROR image was not closed correctly'],
    },
    {
      what: 'place of the data',
      change: number(48, 0xffffff),
      finds: ['ERROR data_off field has incorrect value'],
    },
    {
      what: 'whole clusters at the end',
      change: (bytes) => longer(bytes, 2 * mib),
      finds: [`ERROR space leaked at the end of the image ${2 * mib}`],
    },
    {
      what: 'a part of a cluster at the end',
      change: (bytes) => longer(bytes, 1000),
      finds: ['ERROR space leaked at the end of the image 1024'],
    },
    {
      what: 'two clusters at one place',
      change: number(entryAt(1), 1),
      finds: ['ERROR duplicate offset in BAT entry 1'],
    },
  ]);
});

test('clusters beyond the end of the file, where qemu-img stops short but for a repair', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  await assertChecks(await make(t), { ...parallels, repairs: ['all'] }, [
    {
      what: 'far beyond',
      change: number(entryAt(0), 100),
      finds: ['ERROR cluster 0 is outside image'],
      code: 2,
    },
    {
      what: 'at the end',
      change: number(entryAt(1), 3),
      finds: ['ERROR cluster 1 is outside image'],
      code: 2,
    },
    {
      what: 'all at once',
      change: (bytes) => {
        bytes.writeUInt32LE(0x746f6e59, 44);
        bytes.writeUInt32LE(1, entryAt(1));
        bytes.writeUInt32LE(0xffffffff, entryAt(2));
        return longer(bytes, 2 * mib);
      },
      finds: [
        'ERROR image was not closed correctly',
        'ERROR cluster 2 is outside image',
        `ERROR space leaked at the end of the image ${2 * mib}`,
        'ERROR duplicate offset in BAT entry 1',
      ],
      code: 2,
    },
  ]);
});

test('an entry before the begin of the data is found, and left: the header may be wrong', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const file = await make(t);
  await assertChecks(file, { ...parallels, repairs: [] }, [
    {
      what: 'a begin of the data behind the first cluster',
      change: number(48, 4096),
      finds: ['ERROR cluster 0 is before the data'],
      code: 2,
    },
  ]);
  const damaged = path.join(path.dirname(file), 'damaged');
  const before = await readFile(damaged);
  const { code } = await runCowherd(['check', '-r', 'all', 'damaged'], path.dirname(file));
  assert.equal(code, 2);
  assert.ok((await readFile(damaged)).equals(before));
});

test('-r leaks changes nothing but the length', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const file = await make(t);
  const bytes = await readFile(file);
  bytes.writeUInt32LE(1, entryAt(1));
  await writeFile(file, longer(bytes, mib));
  await using image = await openImage(file, { format: 'parallels', forCheck: true });
  const { leaksFixed, corruptions, corruptionsFixed } = await image.check({ repair: 'leaks' });
  assert.deepEqual([leaksFixed, corruptions, corruptionsFixed], [1, 1, 0]);
  assert.ok((await readFile(file)).equals(bytes));
});

test('a table of nonsense in a file of holes takes no memory, and tells a bounded number of findings', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const file = path.join(await temporaryFolder(t), 'disk.hds');
  await runOk('qemu-img', ['create', '-q', '-f', 'parallels', file, '40G']);
  const bytes = await readFile(file);
  bytes.fill(0xff, 64, 64 + 4 * 40_000);
  await writeFile(file, bytes);
  assert.ok((await stat(file)).size < 2 * mib);
  let told = 0;
  await using image = await openImage(file, { format: 'parallels', forCheck: true });
  const { corruptions, findings } = await image.check({ onFinding: () => (told += 1) });
  assert.deepEqual([corruptions, findings.length, told], [40_000, 10_000, 10_000]);
});
