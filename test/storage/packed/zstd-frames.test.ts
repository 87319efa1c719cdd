/** The framing of zstd data: where frames end, and the checksums of their content. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { unpackZstd } from '../../../src/storage/packed/zstd.js';
import { ZstdFrames } from '../../../src/storage/packed/zstd-frames.js';
import { needsTool } from '../../support/tools.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);

const contents = {
  empty: Buffer.alloc(0),
  small: Buffer.from('a'),
  zeroes: Buffer.alloc(700_000),
  random: randomBytes(300_000),
  mixed: Buffer.concat([randomBytes(10_000), Buffer.alloc(200_000, 5), randomBytes(70_000)]),
};
const options = ['-1', '-19', '--no-check', '--no-content-size', '--ultra'];

/** A frame that decoders skip. */
function skippable(bytes: number): Buffer {
  const frame = Buffer.alloc(8 + bytes, 7);
  frame.writeUInt32LE(0x184d2a53, 0);
  frame.writeUInt32LE(bytes, 4);
  return frame;
}

const frame = fc.oneof(
  fc.record({
    content: fc.constantFrom(...Object.values(contents)),
    option: fc.constantFrom(...options),
  }),
  fc.record({ skipped: fc.integer({ min: 0, max: 5000 }) }),
);

async function unpacked(bytes: Uint8Array, pieceLength: number): Promise<Buffer> {
  const source = async function* (): AsyncGenerator<Uint8Array> {
    for (let at = 0; at < bytes.length; at += pieceLength) {
      yield await Promise.resolve(bytes.subarray(at, at + pieceLength));
    }
  };
  const pieces: Uint8Array[] = [];
  for await (const piece of unpackZstd(source())) pieces.push(Uint8Array.from(piece));
  return Buffer.concat(pieces);
}

test('frames end where they do, in whatever pieces they come, and unpack to what they were', async (t) => {
  if (!needsTool(t, 'zstd')) return;
  t.diagnostic(`seed ${seed}`);
  const pack = (content: Buffer, option: string): Buffer =>
    execFileSync('zstd', ['-qc', option], { input: content, maxBuffer: 2 ** 24 });
  await fc.assert(
    fc.asyncProperty(
      fc.array(frame, { minLength: 1, maxLength: 4 }),
      fc.integer({ min: 1, max: 70_000 }),
      async (frames, pieceLength) => {
        const packed = frames.map((each) =>
          'skipped' in each ? skippable(each.skipped) : pack(each.content, each.option),
        );
        const whole = Buffer.concat(packed);
        const walker = new ZstdFrames();
        const ends: number[] = [];
        for (let at = 0; at < whole.length;) {
          const step = walker.follow(whole.subarray(at, at + pieceLength));
          at += step.length;
          if (step.isEnd) ends.push(at);
        }
        let end = 0;
        assert.deepEqual(
          ends,
          packed.map(({ length }) => (end += length)),
        );
        const expected = frames.map((each) => ('skipped' in each ? Buffer.alloc(0) : each.content));
        assert.ok((await unpacked(whole, pieceLength)).equals(Buffer.concat(expected)));
      },
    ),
    { seed, numRuns: 60 },
  );
});

test('a checksum that does not match is refused, of whichever frame it is', async (t) => {
  if (!needsTool(t, 'zstd')) return;
  const packed = execFileSync('zstd', ['-qc'], { input: contents.mixed });
  for (const frames of [[packed], [packed, packed], [skippable(3), packed, packed]]) {
    const whole = Buffer.concat(frames);
    assert.equal((await unpacked(whole, 4000)).length % contents.mixed.length, 0);
    let end = 0;
    for (const { length } of frames) {
      end += length;
      if (length < 100) continue;
      const damaged = Buffer.from(whole);
      damaged[end - 1] ^= 1;
      await assert.rejects(unpacked(damaged, 4000), Error);
    }
  }
});

test('what is no frame where one has to begin is refused', () => {
  assert.throws(() => new ZstdFrames().follow(Buffer.from('nothing')), /no frame/);
});
