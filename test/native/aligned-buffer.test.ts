import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { addon } from '../../src/native/addon.js';
import { alignedBuffer } from '../../src/native/aligned-buffer.js';

describe('alignedBuffer', () => {
  for (const bytes of [0, 1, 512, 4096, 65_537, 1 << 20]) {
    test(`${bytes} zeroed bytes, from a page on`, () => {
      const buffer = alignedBuffer(bytes);
      assert.equal(buffer.length, bytes);
      assert.ok(buffer.every((byte) => byte === 0));
      if (addon !== undefined && bytes > 0) assert.equal(addon.addressOf(buffer) % 4096, 0);
    });
  }
});
