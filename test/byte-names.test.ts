/** Names as strings that lose nothing. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { bytesOfName, hostPath, nameOfBytes } from '../src/byte-names.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const numRuns = Number(process.env['COWHERD_TEST_RUNS'] ?? 500);
const options = { seed, numRuns, endOnFailure: true };

test('bytes of any kind are the name they become', () => {
  const pieces = fc.array(
    fc.oneof(fc.uint8Array({ maxLength: 6 }), fc.string({ unit: 'binary' }).map(utf8)),
  );
  const bytes = pieces.map((parts) => new Uint8Array(Buffer.concat(parts)));
  fc.assert(
    fc.property(bytes, (name) => {
      assert.deepEqual(new Uint8Array(bytesOfName(nameOfBytes(name))), name);
    }),
    options,
  );
});

test('text is itself', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), (text) => {
      assert.equal(nameOfBytes(utf8(text)), text);
      assert.equal(hostPath(text), text);
    }),
    options,
  );
});

function utf8(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text));
}
