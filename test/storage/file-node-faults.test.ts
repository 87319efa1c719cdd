/** What the portable backend makes of transfers that end early, and of every call that fails. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { CowherdError } from '../../src/errors.js';
import { temporaryFolder } from '../support/tools.js';

type Callback = (error: NodeJS.ErrnoException | null, ...results: unknown[]) => void;
type Call = (...values: unknown[]) => void;

/** What becomes of a call: its arguments changed, or an error instead of it. */
let meddle: (name: string, values: unknown[]) => NodeJS.ErrnoException | undefined = () =>
  undefined;

const names = ['open', 'close', 'fstat', 'read', 'write', 'fdatasync', 'ftruncate'] as const;
const functions = fs as unknown as Record<string, Call>;
for (const name of names) {
  const original = functions[name];
  functions[name] = (...values) => {
    const error = meddle(name, values);
    if (error === undefined) original(...values);
    else setImmediate(values.at(-1) as Callback, error);
  };
}
// Only now, since it keeps some of these functions.
const { createFileNode, openFileNode } = await import('../../src/storage/file/file-node.js');

function failure(): NodeJS.ErrnoException {
  return Object.assign(new Error('EIO: i/o error'), { code: 'EIO' });
}

function pattern(length: number, seed: number): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => (index * 7 + seed) & 0xff);
}

/** Everything once. */
async function use(filename: string): Promise<void> {
  const file = await createFileNode(filename, {});
  try {
    await file.write(pattern(10_000, 1), 0);
    await file.writeVector([pattern(5000, 2), pattern(3, 3)], 10_000);
    await file.flush();
    await file.writeZeroes(500, 4000, true);
    const found = new Uint8Array(20_000);
    await file.read(found, 0);
    const expected = new Uint8Array(20_000);
    expected.set(pattern(10_000, 1));
    expected.set(pattern(5000, 2), 10_000);
    expected.set(pattern(3, 3), 15_000);
    expected.fill(0, 500, 4500);
    assert.deepEqual(found, expected);
    await file.truncate(700);
    assert.equal(await file.size(), 700);
  } finally {
    await file.close();
  }
  await (await openFileNode(filename, { readOnly: true })).close();
}

async function inFolder(t: TestContext): Promise<string> {
  t.after(() => {
    meddle = () => undefined;
  });
  return path.join(await temporaryFolder(t), 'disk');
}

test('transfers that end early go on', async (t) => {
  const filename = await inFolder(t);
  let shortened = 0;
  meddle = (name, values) => {
    if ((name === 'read' || name === 'write') && (values[3] as number) > 1) {
      values[3] = Math.ceil((values[3] as number) / 3);
      shortened++;
    }
    return undefined;
  };
  await use(filename);
  assert.ok(shortened > 20);
});

test('a transfer that fails after a part is an error', async (t) => {
  const filename = await inFolder(t);
  const file = await createFileNode(filename, {});
  let calls = 0;
  meddle = (name, values) => {
    if (name !== 'write') return undefined;
    values[3] = Math.ceil((values[3] as number) / 3);
    return ++calls === 2 ? failure() : undefined;
  };
  await assert.rejects(file.write(pattern(900, 1), 0), { code: 'ERR_COWHERD_IO', filename });
  await file.close();
});

test('a write that moves nothing is an error, not a wait for ever', async (t) => {
  const filename = await inFolder(t);
  const file = await createFileNode(filename, {});
  meddle = (name, values) => {
    if (name === 'write') values[3] = 0;
    return undefined;
  };
  await assert.rejects(file.write(pattern(900, 1), 0), { code: 'ERR_COWHERD_NO_SPACE' });
  await file.close();
});

test('a vector of which one part fails ends when all parts have ended', async (t) => {
  const filename = await inFolder(t);
  const file = await createFileNode(filename, {});
  let calls = 0;
  let slowEnded = false;
  meddle = (name, values) => {
    if (name !== 'write') return undefined;
    calls++;
    if (calls === 1) return failure();
    const done = values.at(-1) as Callback;
    values[values.length - 1] = (...results: Parameters<Callback>) => {
      setTimeout(() => {
        slowEnded = true;
        done(...results);
      }, 20);
    };
    return undefined;
  };
  await assert.rejects(file.writeVector([pattern(10, 1), pattern(10, 2)], 0));
  assert.ok(slowEnded, 'a buffer was still in use');
  await file.close();
});

test('each call fails in turn: a clear error, and nothing stays open', async (t) => {
  const filename = await inFolder(t);
  let calls = 0;
  meddle = () => {
    calls++;
    return undefined;
  };
  await use(filename);
  const sites = calls;
  for (let site = 1; site <= sites; site++) {
    const before = fs.readdirSync('/proc/self/fd').length;
    calls = 0;
    let struck = '';
    meddle = (name) => {
      if (++calls !== site) return undefined;
      struck = name;
      return failure();
    };
    await assert.rejects(use(filename), (error) => {
      assert.ok(error instanceof CowherdError, String(error));
      assert.ok(error.message.includes(filename));
      return true;
    });
    const left = fs.readdirSync('/proc/self/fd').length - before;
    // A close that is refused here has not happened.
    assert.equal(left, struck === 'close' ? 1 : 0, `${struck}, site ${site}`);
  }
  t.diagnostic(`${sites} sites`);
});
