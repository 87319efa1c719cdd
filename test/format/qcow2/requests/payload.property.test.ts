/**
 * Every guest byte that is stored uncompressed passes the payload: under a cipher that goes by the sectors of the disk
 * or of the file, whatever is requested reads back as it was written, and no byte lies in the file as it was written.
 */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { QueueCounters } from '../../../../src/engine/queues/counters.js';
import type { FormatQueue } from '../../../../src/format/driver.js';
import type { PayloadCipher, SectorNumbers } from '../../../../src/format/encryption/disk-key.js';
import type { Qcow2Image } from '../../../../src/format/qcow2/image.js';
import { Qcow2Queue } from '../../../../src/format/qcow2/requests/queue.js';
import { formatFile } from '../../../../src/image/graph/create.js';
import { allocateSharedState } from '../../../../src/image/graph/shared-state.js';
import { openSectorCipher } from '../../../../src/native/sector-ciphers.js';
import { MemoryContent, MemoryFile } from '../../../../src/storage/memory/memory-file.js';
import { bytesOf, openOver } from '../../../crash/open-over.js';
import { needsTool, run, temporaryFolder } from '../../../support/tools.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const runs = Number(process.env['COWHERD_TEST_RUNS'] ?? 25);
const size = 40 * 16384 + 1536;
const layout = { format: 'qcow2', size, clusterSize: 16384 } as const;

const spec = { algorithm: 'aes-128', mode: 'xts', ivgen: 'plain64' } as const;

function cipherOf(numbers: SectorNumbers): PayloadCipher {
  return {
    cipher: openSectorCipher(
      spec,
      new Uint8Array(32).map((_, at) => at),
    ),
    numbers,
  };
}

interface Change {
  readonly kind: 'write' | 'zero' | 'unmap' | 'discard' | 'compress';
  readonly at: number;
  readonly length: number;
  readonly fill: number;
}

const change: fc.Arbitrary<Change> = fc.record({
  kind: fc.constantFrom('write', 'write', 'write', 'zero', 'unmap', 'discard', 'compress'),
  at: fc.oneof(
    fc.nat(size - 1),
    fc.nat(39).map((cluster) => cluster * 16384),
  ),
  length: fc.oneof(
    fc.integer({ min: 1, max: 2000 }),
    fc.constantFrom(512, 16384),
    fc.integer({ min: 1, max: 90_000 }),
  ),
  fill: fc.integer({ min: 1, max: 255 }),
});

/** Does a change to a queue and to the model. */
async function apply(queue: FormatQueue, model: Uint8Array, step: Change): Promise<void> {
  const { kind, fill } = step;
  const { clusterSize } = layout;
  const isWhole = kind === 'discard' || kind === 'compress';
  const at = isWhole ? step.at - (step.at % clusterSize) : step.at;
  const length = Math.min(isWhole ? clusterSize : step.length, size - at);
  model.fill(kind === 'write' || kind === 'compress' ? fill : 0, at, at + length);
  const bytes = new Uint8Array(length).fill(fill);
  if (kind === 'write') await queue.write(bytes, at);
  else if (kind === 'compress') await queue.writeCompressed(bytes, at);
  else if (kind === 'discard') await queue.discard(at, length);
  else await queue.writeZeroes(at, length, kind === 'unmap');
}

for (const how of ['standard', 'extended', 'data file', 'backing'] as const) {
  test(`guest data pass one place in every request: ${how}`, async (t) => {
    t.diagnostic(`seed ${seed}, ${runs} runs`);
    const folder = await temporaryFolder(t);
    const hasTool = needsTool(t, 'qemu-img');
    const payload = cipherOf(how === 'standard' ? 'guest' : 'host');
    let nth = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 25 }), async (steps) => {
        const content = new MemoryContent();
        const data = how === 'data file' ? new MemoryContent() : undefined;
        const backing = how === 'backing' ? new Uint8Array(300_000).fill(0x5a) : undefined;
        const place = new MemoryFile('disk', { content });
        const extendedL2 = how === 'extended';
        await formatFile(place, {
          ...layout,
          extendedL2,
          ...(data && { dataFile: path.join(folder, 'data') }),
          ...(backing && { backing: { name: 'base', format: 'raw' } }),
        });
        const file = new MemoryFile('disk', { content });
        const dataFile = data && new MemoryFile('data', { content: data });
        let format: Qcow2Image | undefined;
        await openOver({ file, dataFile, backing: undefined }, (opened) => (format = opened));
        const { metadata } = format!;
        const queue: FormatQueue = new Qcow2Queue({
          metadata,
          header: metadata.headerFile.header,
          file,
          dataFile,
          backing: backing && {
            size: backing.length,
            read: (buffer, offset) => {
              buffer.set(backing.subarray(offset, offset + buffer.length));
              return Promise.resolve();
            },
            isKnownZero: () => Promise.resolve(false),
            close: () => Promise.resolve(),
          },
          counters: QueueCounters.take(allocateSharedState().counters),
          inOrder: false,
          cipher: payload,
          beforeFirstChange: () => Promise.resolve(),
          onClosed: () => undefined,
        });
        assert.equal(queue.dataCopy({ sparseSize: 0, offload: false }), undefined);
        const model = new Uint8Array(size);
        if (backing !== undefined) model.set(backing);
        for (const step of steps) {
          if (step.kind === 'compress' && data !== undefined) continue;
          await apply(queue, model, step);
        }
        const found = new Uint8Array(size);
        await queue.read(found, 0);
        assert.ok(Buffer.compare(found, model) === 0, 'what was written is read');
        for (let at = 0; at < size; at += 4096) {
          const part = new Uint8Array(Math.min(4096, size - at));
          await queue.read(part, at);
          assert.ok(Buffer.compare(part, model.subarray(at, at + part.length)) === 0);
        }
        await queue.flush();
        const stored = bytesOf(data ?? content);
        for await (const extent of format!.extents(0, size)) {
          const { start, length, offset } = extent;
          if (!extent.data || offset === undefined) continue;
          const decoded = stored.slice(offset, offset + length);
          const first = payload.numbers === 'guest' ? start : offset;
          await payload.cipher.decrypt(decoded, first / 512);
          assert.ok(Buffer.compare(decoded, model.subarray(start, start + length)) === 0);
        }
        await queue.close();
        if (!hasTool || nth++ % 10 !== 0 || how === 'data file' || how === 'backing') return;
        const name = path.join(folder, `disk${nth}.qcow2`);
        await writeFile(name, bytesOf(content));
        const { code, stdout, stderr } = await run('qemu-img', ['check', '-q', name]);
        assert.ok(code === 0 || code === 3, stdout + stderr);
      }),
      { seed, numRuns: runs },
    );
  });
}
