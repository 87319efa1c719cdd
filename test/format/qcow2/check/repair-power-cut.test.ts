/**
 * A repair that a power cut ends, at any point and with any part of what was not yet durable lost:
 * the guest's data is what it was, and another repair ends what the first began.
 */
import assert from 'node:assert/strict';
import { copyFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import type { CheckReport } from '../../../../src/format/check.js';
import { checkQcow2 } from '../../../../src/format/qcow2/check/check.js';
import { readQcow2Header } from '../../../../src/format/qcow2/image.js';
import { openImageOn } from '../../../../src/image/graph/open.js';
import { MemoryContent, MemoryFile } from '../../../../src/storage/memory/memory-file.js';
import type { StorageFile } from '../../../../src/storage/storage.js';
import { Random } from '../../../stress/random.js';
import { CorruptionBases, imageName } from '../../../support/corruption-bases.js';
import { type Corruption, DamagedImage, corruptions } from '../../../support/corruptions.js';
import { needsTool, temporaryFolder } from '../../../support/tools.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const sectorSize = 512;

/** What a file was asked to do, in order. */
type Step = { readonly bytes: Uint8Array; readonly offset: number } | 'barrier';

/** A file in memory that remembers its writes and barriers. */
class RecordingFile extends MemoryFile {
  readonly steps: Step[] = [];

  override write(buffer: Uint8Array, offset: number): Promise<void> {
    this.steps.push({ bytes: buffer.slice(), offset });
    return super.write(buffer, offset);
  }

  override flush(): Promise<void> {
    this.steps.push('barrier');
    return super.flush();
  }
}

/** What a disk may hold after a cut: all up to the last barrier, and some sectors of what follows. */
function cutAfter(
  before: MemoryContent,
  steps: readonly Step[],
  count: number,
  random: Random,
): MemoryContent {
  const content = before.clone();
  const durable = steps.lastIndexOf('barrier', count - 1);
  for (const [index, step] of steps.slice(0, count).entries()) {
    if (step === 'barrier') continue;
    for (let at = 0; at < step.bytes.length; at += sectorSize) {
      if (index > durable && random.chance(0.5)) continue;
      content.write(step.bytes.subarray(at, at + sectorSize), step.offset + at);
    }
  }
  return content;
}

async function repair(file: StorageFile): Promise<CheckReport> {
  return checkQcow2(file, await readQcow2Header(file, { forCheck: true }), { repair: 'all' });
}

async function guestData(content: MemoryContent): Promise<Buffer> {
  const file = new MemoryFile('image', { content, readOnly: true });
  const image = await openImageOn(file, { readOnly: true, forCheck: true });
  const data = Buffer.alloc(image.size);
  await image.read(data, 0);
  await image.close();
  return data;
}

/** What is repaired completely, and where every cluster of the guest can be read. */
const chosen: readonly Corruption[] = corruptions.filter(({ name }) =>
  /^(?:count|all counts|leaked clusters$|one of several|refcount (?:table of zeroes|block missing)|COPIED (?:missing|on data|on an L2)|two entries|snapshot with too|dirty bit)/.test(
    name,
  ),
);

test('a repair that is cut off leaves the data alone, and can be repeated', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  t.diagnostic(`seed ${seed}`);
  const random = new Random(seed);
  const folder = await temporaryFolder(t);
  const bases = new CorruptionBases(folder);
  for (const corruption of chosen.filter(({ base }) => base.name !== 'external')) {
    await t.test(corruption.name, async () => {
      const damagedFile = path.join(folder, 'damaged.qcow2');
      await copyFile(path.join(await bases.folderOf(corruption.base), imageName), damagedFile);
      const damaged = new DamagedImage(damagedFile);
      corruption.damage(damaged);
      const before = new MemoryContent();
      before.write(damaged.bytes, 0);
      const data = await guestData(before);
      const whole = new RecordingFile('image', { content: before.clone() });
      const { corruptions: left, checkErrors } = await repair(whole);
      assert.deepEqual([left, checkErrors], [0, 0]);
      const cuts = whole.steps.length + 1;
      for (let run = 0; run < Math.min(cuts * 2, 60); run++) {
        const count = run < cuts ? run : random.below(cuts);
        const content = cutAfter(before, whole.steps, count, random);
        assert.deepEqual(await guestData(content), data, `data, cut after step ${count}`);
        const again = await repair(new MemoryFile('image', { content }));
        assert.deepEqual([again.corruptions, again.checkErrors, again.leaks], [0, 0, 0]);
        assert.deepEqual(await guestData(content), data, 'data, repaired again');
      }
    });
  }
});
