/** Every storage and every filter keeps what storage files promise; and what breaks a promise is found. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, test } from 'node:test';
import {
  type ConformingStorage,
  storageConformance,
} from '../../../src/storage/conformance/conformance.js';
import { CrashLog, CrashLogFile } from '../../../src/storage/filters/crash-log.js';
import { FaultFile, FaultPlan } from '../../../src/storage/filters/fault.js';
import { TraceFile } from '../../../src/storage/filters/trace.js';
import { WindowFile } from '../../../src/storage/filters/window.js';
import { MemoryContent, MemoryFile } from '../../../src/storage/memory/memory-file.js';
import { openStorageFile } from '../../../src/storage/registry.js';
import type { StorageFile } from '../../../src/storage/storage.js';
import { runOk, needsTool, temporaryFolder } from '../../support/tools.js';
import { startWebServer } from '../../support/web-server.js';
import { backends, createOrSkip } from '../backends.js';

for (const backend of backends) {
  describe(backend.name, () => {
    // The cases are the same whichever file they get; a test that has none is skipped.
    const names = storageConformance({ create: () => new MemoryFile() }).map(({ name }) => name);
    for (const [index, name] of names.entries()) {
      test(name, async (t) => {
        const file = await createOrSkip(t, backend);
        if (file === undefined) return;
        await storageConformance({ create: () => file })[index].run();
      });
    }
  });
}

function memoryWith(content: Uint8Array, readOnly = false): MemoryFile {
  const memory = new MemoryContent();
  memory.write(content, 0);
  return new MemoryFile('memory', { content: memory, readOnly });
}

const storages: Readonly<Record<string, ConformingStorage>> = {
  'memory that is only read': {
    create: (content) => memoryWith(content, true),
    writing: false,
  },
  'a window into memory': {
    create: (content) => {
      const around = new Uint8Array(content.length + 131_072).fill(0xdd);
      around.set(content, 65_536);
      const name = { protocol: 'memory', filename: 'window' };
      return new WindowFile(memoryWith(around), name, { start: 65_536, length: content.length });
    },
    resizing: false,
  },
  'a trace': { create: () => new TraceFile(new MemoryFile(), () => undefined) },
  'a log for crashes': { create: () => new CrashLogFile(new MemoryFile(), new CrashLog()) },
  'faults that do not come': {
    create: () => new FaultFile(new MemoryFile(), new FaultPlan({ kinds: [], nth: 1 })),
  },
};

for (const [name, storage] of Object.entries(storages)) {
  describe(name, () => {
    for (const each of storageConformance(storage)) test(each.name, each.run);
  });
}

test('a file of a web server', async (t) => {
  const server = await startWebServer(t, new Uint8Array(0), { etag: '"1"' });
  const create = (content: Uint8Array): Promise<StorageFile> => {
    server.content = content;
    return openStorageFile(server.url, { readOnly: true });
  };
  for (const { name, run } of storageConformance({ create, writing: false })) {
    await t.test(name, run);
  }
});

test('a file within an OVA', async (t) => {
  if (!needsTool(t, 'tar')) return;
  const folder = await temporaryFolder(t);
  const create = async (content: Uint8Array): Promise<StorageFile> => {
    await writeFile(path.join(folder, 'disk.img'), content);
    await writeFile(
      path.join(folder, 'vm.ovf'),
      '<Envelope><File href="disk.img" id="f"/></Envelope>',
    );
    await runOk('tar', ['-cf', 'vm.ova', 'vm.ovf', 'disk.img'], { cwd: folder });
    return await openStorageFile(`ova:${path.join(folder, 'vm.ova')}#disk.img`, { readOnly: true });
  };
  for (const { name, run } of storageConformance({ create, writing: false })) {
    await t.test(name, run);
  }
});

/** The names of the cases that a storage fails. */
async function brokenPromises(storage: ConformingStorage): Promise<readonly string[]> {
  const broken: string[] = [];
  for (const { name, run } of storageConformance(storage)) {
    await run().catch(() => broken.push(name));
  }
  return broken;
}

/** A file that does one thing otherwise than it should. */
function altered(file: StorageFile, changes: Partial<StorageFile>): StorageFile {
  return new Proxy(file, {
    get(target, key) {
      const changed = changes[key as keyof StorageFile];
      const value: unknown = changed ?? Reflect.get(target, key);
      return typeof value === 'function' ? (value as () => unknown).bind(target) : value;
    },
  });
}

test('what is promised and not kept is found', async () => {
  const wrong = (changes: (file: MemoryFile) => Partial<StorageFile>): ConformingStorage => ({
    create: () => {
      const file = new MemoryFile();
      return altered(file, changes(file));
    },
  });
  assert.deepEqual(await brokenPromises(wrong(() => ({ discard: () => Promise.resolve(true) }))), [
    'discard keeps the size, and says whether it left zeroes',
    'status follows every change made through the file',
    'a change that is out of range is refused',
  ]);
  assert.deepEqual(
    await brokenPromises(
      wrong((file) => ({
        writeVector: (buffers, offset) => file.write(Buffer.concat(buffers), offset + 1),
      })),
    ),
    [
      'a vector is written buffer after buffer',
      'a vector that is written may be longer than the system takes at once',
      'a write beyond the end grows the file, with zeroes in between',
    ],
  );
  const lost = await brokenPromises(wrong(() => ({ truncate: () => Promise.resolve() })));
  assert.ok(lost.includes('truncate shrinks, grows, and grown bytes are zero'));
  const early = await brokenPromises(
    wrong((file) => ({
      submitRead: (buffer, offset, completion) => {
        void file.read(buffer, offset);
        completion.complete(null);
      },
    })),
  );
  assert.ok(early.includes('a read completes once, and not from within the call'));
});

test('each case has a file of its own, which is closed and removed', async () => {
  const made: StorageFile[] = [];
  const removed: StorageFile[] = [];
  const cases = storageConformance({
    create: () => {
      const file = new MemoryFile();
      made.push(file);
      return file;
    },
    remove: async (file) => {
      await assert.rejects(file.flush(), { code: 'ERR_COWHERD_CLOSED' });
      removed.push(file);
    },
  });
  for (const { run } of cases) await run();
  assert.equal(made.length, cases.length);
  assert.deepEqual(removed, made);
  assert.equal(new Set(cases.map(({ name }) => name)).size, cases.length);
  assert.ok(
    cases.every(({ run }) => run.length === 0),
    'runners take an argument for a callback',
  );
});
