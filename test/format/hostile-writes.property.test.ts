/**
 * Malformed images of the other formats that are written to: each write succeeds or fails with one line that
 * names the file, and what was there before the image was opened is changed by nothing else.
 */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { CowherdError } from '../../src/errors.js';
import { openImageOn } from '../../src/image/graph/open.js';
import { MemoryContent, MemoryFile } from '../../src/storage/memory/memory-file.js';
import { applyMutant } from '../fuzz/mutation.js';
import { isOtherFormat, mutateOther } from '../fuzz/mutation-formats.js';
import { Random } from '../stress/random.js';
import { fixtures } from '../support/fixtures.js';
import { projectFolder } from '../support/tools.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const runs = Number(process.env['COWHERD_TEST_RUNS'] ?? 60);
/** Bytes that a file may grow by: a VDI's data may be said to begin as far on, and no block is longer. */
const mostGrowth = 2 ** 33;

for (const { file, stored, format } of fixtures.filter((each) => isOtherFormat(each.file))) {
  test(`${file}: malformed images are written to, or refused in one line`, async (t) => {
    t.diagnostic(`seed ${seed}, ${runs} runs`);
    const bytes = await readFile(path.join(projectFolder, 'fixtures', 'images', stored));
    const original = stored.endsWith('.gz') ? gunzipSync(bytes) : bytes;
    const random = new Random(seed);
    let written = 0;
    for (let run = 0; run < runs; run++) {
      const mutant = mutateOther(file, original, random);
      const name = JSON.stringify(mutant);
      const content = new MemoryContent();
      content.write(applyMutant(original, mutant), 0);
      const before = content.size;
      try {
        written += await writeTo(new MemoryFile('hostile', { content }), format, random);
      } catch (error) {
        assert.ok(error instanceof CowherdError, `${name}: ${(error as Error).stack ?? ''}`);
        assert.match(error.message, /hostile/, name);
        assert.doesNotMatch(error.message, /\n/, name);
      }
      assert.ok(content.size <= before + mostGrowth, `${name}: the file has ${content.size} bytes`);
    }
    t.diagnostic(`${written} writes succeeded`);
  });
}

/** Writes here and there. @returns how many writes succeeded */
async function writeTo(file: MemoryFile, format: string, random: Random): Promise<number> {
  const image = await openImageOn(file, { format, backing: 'deny', cacheSize: 1 });
  let written = 0;
  try {
    const sectors = Math.floor(image.size / 512);
    if (sectors === 0) return 0;
    for (let count = 0; count < 4; count++) {
      const sector = Math.floor(random.next() * Math.min(sectors, 2 ** 40));
      const length = Math.min(1 + random.below(300), sectors - sector) * 512;
      const bytes = new Uint8Array(length).fill(0x77);
      const read = new Uint8Array(length);
      await image.write(bytes, sector * 512);
      await image.flush();
      await image.read(read, sector * 512);
      written++;
    }
  } finally {
    await image.close();
  }
  return written;
}
