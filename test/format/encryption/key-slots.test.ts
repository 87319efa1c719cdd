/** The key slots of LUKS: passwords that are added and given up, cut off anywhere, and headers that are damaged. */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { CowherdError } from '../../../src/errors.js';
import {
  type LuksArea,
  addKey,
  eraseKeys,
  readLuksHeader,
  unlock,
} from '../../../src/format/encryption/key-slots.js';
import { makeLuksHeader } from '../../../src/format/encryption/new-header.js';
import { refusingImage } from '../../../src/format/encryption/secret.js';
import { createImage } from '../../../src/image/graph/create.js';
import { openImage } from '../../../src/image/graph/open.js';
import { needsTool, run, temporaryFolder } from '../../support/tools.js';

const refuse = refusingImage('disk');
const bytesOf = (text: string): Uint8Array => new Uint8Array(Buffer.from(text));

/** A header in memory, and what it was after each write. */
class MemoryArea implements LuksArea {
  readonly states: Uint8Array[] = [];

  constructor(
    public bytes: Uint8Array,
    readonly masterKey: Uint8Array,
  ) {}

  read(buffer: Uint8Array, offset: number): Promise<void> {
    buffer.set(this.bytes.subarray(offset, offset + buffer.length));
    return Promise.resolve();
  }

  write(buffer: Uint8Array, offset: number): Promise<void> {
    this.bytes = this.bytes.slice();
    this.bytes.set(buffer, offset);
    this.states.push(this.bytes);
    return Promise.resolve();
  }

  flush(): Promise<void> {
    return Promise.resolve();
  }
}

async function newArea(secret: string): Promise<MemoryArea> {
  const { header, parts, masterKey } = await makeLuksHeader(
    { secret, iterTime: 1, cipherAlg: 'aes-128' },
    '',
  );
  const area = new MemoryArea(new Uint8Array(header.payloadSector * 512), masterKey);
  for (const { bytes, offset } of parts) await area.write(bytes, offset);
  area.states.length = 0;
  return area;
}

async function opens(area: MemoryArea, password: string): Promise<boolean> {
  const header = await readLuksHeader(area, refuse);
  try {
    await unlock(header, area, bytesOf(password), refuse);
    return true;
  } catch (error) {
    assert.match((error as Error).message, /Invalid password, cannot unlock any keyslot/);
    return false;
  }
}

const add = async (area: MemoryArea, more: object): Promise<unknown> => {
  const { masterKey } = area;
  const key = { masterKey, newPassword: bytesOf('two'), iterTimeMs: 1, ...more };
  return addKey(await readLuksHeader(area, refuse), area, key, refuse);
};
const erase = async (area: MemoryArea, key: object): Promise<unknown> =>
  eraseKeys(await readLuksHeader(area, refuse), area, key, refuse);

test('passwords are added and given up, and one always opens the disk', async () => {
  const area = await newArea('one');
  await add(area, {});
  await add(area, { newPassword: bytesOf('seven'), slot: 6 });
  assert.ok(
    (await opens(area, 'one')) && (await opens(area, 'two')) && (await opens(area, 'seven')),
  );
  await assert.rejects(add(area, { slot: 6 }), /Refusing to overwrite active keyslot 6/);
  await assert.rejects(
    add(area, { slot: 8 }),
    /Invalid keyslot 8 specified, must be between 0 and 7/,
  );
  await erase(area, { oldPassword: bytesOf('two') });
  assert.ok(!(await opens(area, 'two')));
  await assert.rejects(erase(area, { slot: 1 }), /already erased/);
  await assert.rejects(erase(area, { slot: 0, oldPassword: bytesOf('two') }), /doesn't contain/);
  await assert.rejects(erase(area, { oldPassword: bytesOf('two') }), /No keyslots match/);
  await assert.rejects(erase(area, {}), /either explicit keyslot index or the password/);
  await erase(area, { slot: 6 });
  await assert.rejects(erase(area, { slot: 0 }), /only active keyslot 0/);
  await assert.rejects(erase(area, { oldPassword: bytesOf('one') }), /All the active keyslots/);
  assert.ok(await opens(area, 'one'));
  await erase(area, { slot: 0, force: true });
  assert.ok(!(await opens(area, 'one')));
});

test('a change that is cut off anywhere leaves the passwords before it or after it', async () => {
  for (const slot of [0, 1, 6, 7]) {
    const area = await newArea('one');
    const isOver = slot === 0;
    await add(area, { slot, force: isOver });
    assert.ok(await opens(area, 'two'));
    for (const state of area.states) {
      const cut = new MemoryArea(state, area.masterKey);
      assert.ok((await opens(cut, 'one')) || (await opens(cut, 'two')), `slot ${slot}`);
      if (!isOver) assert.ok(await opens(cut, 'one'));
    }
    if (isOver) assert.ok(!(await opens(area, 'one')));
  }
});

test('cryptsetup knows a password that was added to an image', async (t) => {
  if (!needsTool(t, 'cryptsetup')) return;
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk');
  await createImage(file, { format: 'luks', size: 65536, encrypt: { secret: 'one', iterTime: 1 } });
  const bytes = await readFile(file);
  const header = await readLuksHeader(new MemoryArea(bytes, new Uint8Array()), refuse);
  const masterKey = await unlock(
    header,
    new MemoryArea(bytes, new Uint8Array()),
    bytesOf('one'),
    refuse,
  );
  const area = new MemoryArea(bytes, masterKey);
  await add(area, {});
  await writeFile(file, area.bytes);
  for (const [password, code] of [
    ['one', 0],
    ['two', 0],
    ['three', 2],
  ] as const) {
    const words = ['open', '--test-passphrase', '--key-file', '-', '--batch-mode', file];
    const result = await run('cryptsetup', words, { input: password });
    assert.equal(result.code, code, password + result.stderr);
  }
});

test('a damaged header is refused in one line, soon', async () => {
  const good = (await newArea('one')).bytes;
  const numbers = [0, 1, 7, 0x7fffffff, 0xffffffff, 0x00ac71f3, 0x0000dead, 4000, 64];
  const damage = fc.record({
    at: fc.oneof(fc.nat(588), fc.constantFrom(104, 108, 164, 208, 212, 248, 252, 496)),
    number: fc.oneof(fc.constantFrom(...numbers), fc.nat(0xffffffff)),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(damage, { minLength: 1, maxLength: 3 }), async (damages) => {
      const area = new MemoryArea(good.slice(), new Uint8Array());
      const view = new DataView(area.bytes.buffer);
      for (const { at, number } of damages) view.setUint32(at, number);
      // More than a moment's iterations are what an attacker asks for, and is not refused below 2^28.
      const isSlow = [164, 212].some((at) => view.getUint32(at) > 1_000_000);
      try {
        const header = await readLuksHeader(area, refuse);
        if (!isSlow) await unlock(header, area, bytesOf('one'), refuse);
      } catch (error) {
        assert.ok(error instanceof CowherdError, String(error));
        assert.doesNotMatch(error.message, /\n/);
      }
    }),
    { numRuns: 300 },
  );
});

test('a header that ends, or asks for endless work, is refused', async (t) => {
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk');
  const encrypt = { secret: 'one', iterTime: 1 };
  await createImage(file, { format: 'luks', size: 65536, encrypt });
  const whole = await readFile(file);
  const refused = { code: 'ERR_COWHERD_INVALID_IMAGE' };
  for (const length of [8, 100, 592, 4096]) {
    await writeFile(file, whole.subarray(0, length));
    await assert.rejects(
      openImage(file, { format: 'luks', encrypt: { secret: 'one' } }),
      // Where slots are cut off, no password opens any.
      (error: CowherdError) => /^ERR_COWHERD_(?:INVALID_IMAGE|ACCESS)$/.test(error.code),
    );
  }
  for (const at of [164, 212]) {
    const endless = Buffer.from(whole);
    endless.writeUInt32BE(0xffffffff, at);
    await writeFile(file, endless);
    await assert.rejects(openImage(file, { encrypt: { secret: 'one' } }), refused);
  }
});
