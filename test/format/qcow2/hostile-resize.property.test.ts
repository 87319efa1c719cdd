/** Malformed images whose disks get another size: that is done, or refused with one line that names the file. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { CowherdError } from '../../../src/errors.js';
import { openImageOn } from '../../../src/image/graph/open.js';
import { MemoryContent, MemoryFile } from '../../../src/storage/memory/memory-file.js';
import { type Mutant, applyMutant, mutate } from '../../fuzz/mutation.js';
import { Random } from '../../stress/random.js';
import { fixtures } from '../../support/fixtures.js';
import { projectFolder } from '../../support/tools.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const runs = Number(process.env['COWHERD_TEST_RUNS'] ?? 40);
/** Fixtures that are larger have nothing that these have not. */
const mostBytes = 1 << 20;

/** What these runs found once. */
const found: readonly Mutant[] = [
  {
    fixture: 'dirty.qcow2',
    edits: [
      { offset: 60, bytes: '0000e000' },
      { offset: 36, bytes: '00003000' },
    ],
  },
];

test('malformed images that once ended a resize with an error of the program are refused', async () => {
  for (const mutant of found) {
    const bytes = await readFile(path.join(projectFolder, 'fixtures', 'images', mutant.fixture));
    const content = new MemoryContent();
    content.write(applyMutant(bytes, mutant), 0);
    await assert.rejects(
      resize(new MemoryFile('hostile', { content }), new Random(1)),
      CowherdError,
    );
  }
});

test('malformed images are resized, or refused in one line', { timeout: 300_000 }, async (t) => {
  t.diagnostic(`seed ${seed}, ${runs} runs of each fixture`);
  const random = new Random(seed);
  let resized = 0;
  for (const { file, stored, format } of fixtures) {
    if (format !== 'qcow2') continue;
    const bytes = await readFile(path.join(projectFolder, 'fixtures', 'images', stored));
    const original = stored.endsWith('.gz') ? gunzipSync(bytes) : bytes;
    if (original.length > mostBytes) continue;
    for (let run = 0; run < runs; run++) {
      const mutant = mutate(file, original, random);
      const content = new MemoryContent();
      content.write(applyMutant(original, mutant), 0);
      try {
        resized += await resize(new MemoryFile('hostile', { content }), random);
      } catch (error) {
        const name = JSON.stringify(mutant);
        assert.ok(error instanceof CowherdError, `${name}: ${(error as Error).stack ?? ''}`);
        assert.match(error.message, /hostile|^Could not open '/, name);
        assert.doesNotMatch(error.message, /\n/, name);
      }
    }
  }
  t.diagnostic(`${resized} sizes were given`);
  assert.ok(resized > runs, 'some are resized');
});

/** Gives the disk sizes, and writes at its end. @returns how many sizes */
async function resize(file: MemoryFile, random: Random): Promise<number> {
  const image = await openImageOn(file, { format: 'qcow2', backing: 'ignore', cacheSize: 1 });
  let count = 0;
  try {
    while (count < 4) {
      const size = random.pick([0, 512, 65_536, 1 << 20, image.size * 2, 2 ** 33, 512 * 12_345]);
      await image.resize(Math.min(size, 2 ** 40), { shrink: true });
      if (size >= 1024) await image.write(new Uint8Array(512).fill(3), image.size - 1024);
      count += 1;
    }
  } finally {
    await image.close();
  }
  return count;
}
