/** Ciphers of sectors: the addon's and the portable one give the same, and what they make is what others know. */
import assert from 'node:assert/strict';
import { createCipheriv, randomBytes } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { addon } from '../../src/native/addon.js';
import { PortableSectorCipher } from '../../src/native/portable-sector-cipher.js';
import type { CipherMode, IvGenerator, SectorCipherSpec } from '../../src/native/sector-cipher.js';
import { openSectorCipher, sectorCipherParts } from '../../src/native/sector-ciphers.js';

const spec: fc.Arbitrary<SectorCipherSpec> = fc.record({
  algorithm: fc.constantFrom('aes-128', 'aes-192', 'aes-256'),
  mode: fc.constantFrom<CipherMode>('ecb', 'cbc', 'xts', 'ctr'),
  ivgen: fc.constantFrom<IvGenerator>('plain', 'plain64', 'essiv'),
  ivgenHash: fc.constant('sha256'),
  ivgenAlgorithm: fc.constant('aes-256'),
});

function keyOf({ algorithm, mode }: SectorCipherSpec): Uint8Array {
  const bytes = Number(algorithm.slice(4)) / 8;
  return new Uint8Array(randomBytes(mode === 'xts' ? 2 * bytes : bytes));
}

test('the addon and Node encipher alike, and decipher what the other has enciphered', async (t) => {
  if (addon === undefined) {
    t.skip('there is no addon');
    return;
  }
  const sectors = fc.integer({ min: 1, max: 600 });
  const first = fc.oneof(fc.nat(), fc.maxSafeNat().map((number) => Math.floor(number / 512)));
  await fc.assert(
    fc.asyncProperty(spec, sectors, first, async (made, count, sector) => {
      const key = keyOf(made);
      const [native, portable] = [
        openSectorCipher(made, key),
        new PortableSectorCipher(sectorCipherParts(made, key)),
      ];
      const plain = new Uint8Array(randomBytes(count * 512));
      const [theirs, ours] = [new Uint8Array(plain.length), new Uint8Array(plain.length)];
      await native.encrypt(plain, ours, sector);
      portable.encrypt(plain, theirs, sector);
      assert.ok(Buffer.compare(ours, theirs) === 0);
      portable.decrypt(ours, sector);
      await native.decrypt(theirs, sector);
      assert.ok(Buffer.compare(ours, plain) === 0 && Buffer.compare(theirs, plain) === 0);
    }),
    { numRuns: 60 },
  );
});

test('XTS is what OpenSSL has under that name', async () => {
  for (const algorithm of ['aes-128', 'aes-256']) {
    const made = { algorithm, mode: 'xts', ivgen: 'plain64' } as const;
    const key = keyOf(made);
    const plain = new Uint8Array(randomBytes(40 * 512));
    const ours = new Uint8Array(plain.length);
    await openSectorCipher(made, key).encrypt(plain, ours, 7);
    for (let sector = 0; sector < 40; sector++) {
      const vector = new Uint8Array(16);
      vector[0] = 7 + sector;
      const part = plain.subarray(sector * 512, (sector + 1) * 512);
      const theirs = createCipheriv(`${algorithm}-xts`, key, vector).update(part);
      assert.deepEqual(ours.subarray(sector * 512, (sector + 1) * 512), new Uint8Array(theirs));
    }
  }
});

test('a cipher that OpenSSL does not know is refused', () => {
  const unknown = { algorithm: 'serpent-256', mode: 'cbc', ivgen: 'plain64' } as const;
  const refused = { code: 'ERR_COWHERD_UNSUPPORTED' };
  assert.throws(() => openSectorCipher(unknown, new Uint8Array(32)), refused);
  const parts = sectorCipherParts(unknown, new Uint8Array(32));
  assert.throws(() => new PortableSectorCipher(parts), refused);
});
