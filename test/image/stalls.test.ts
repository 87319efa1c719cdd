/** Waits that last are told of, by a warning that names what is waited for and who holds it. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ControlWord } from '../../src/engine/words/control-block.js';
import { closeGate, openGate } from '../../src/engine/queues/gate.js';
import { LongMutex } from '../../src/engine/words/long-mutex.js';
import { Watchdog } from '../../src/engine/words/watchdog.js';
import type { Qcow2Image } from '../../src/format/qcow2/image.js';
import type { Qcow2Metadata } from '../../src/format/qcow2/metadata/metadata.js';
import { formatFile } from '../../src/image/graph/create.js';
import type { OpenedImage } from '../../src/image/graph/opened-image.js';
import {
  FilterFile,
  type Interception,
  type StorageOperation,
} from '../../src/storage/filters/filter-file.js';
import { MemoryContent, MemoryFile } from '../../src/storage/memory/memory-file.js';
import type { StorageFile } from '../../src/storage/storage.js';
import { openOver } from '../crash/open-over.js';
import { run } from '../support/tools.js';

const limitMs = 300;
process.env['COWHERD_STALL_SECONDS'] = String(limitMs / 1000);

/** What is waited for until it is let go. */
class Hold {
  letGo: () => void = () => undefined;
  readonly gone = new Promise<undefined>((resolve) => {
    this.letGo = () => {
      resolve(undefined);
    };
  });
}

/** Keeps operations back. */
class HeldFile extends FilterFile {
  static held: ((operation: StorageOperation) => boolean) | undefined;
  static hold = new Hold();

  static over(inner: StorageFile): HeldFile {
    return new HeldFile(inner);
  }

  openQueue(): HeldFile {
    return new HeldFile(this.inner.openQueue());
  }

  protected intercept(operation: StorageOperation): Interception {
    return HeldFile.held?.(operation) === true ? HeldFile.hold.gone : undefined;
  }
}

interface OpenDisk {
  readonly image: OpenedImage;
  readonly metadata: Qcow2Metadata;
}

async function openDisk(): Promise<OpenDisk> {
  const content = new MemoryContent();
  const options = { format: 'qcow2', size: 64 << 20, clusterSize: 4096 } as const;
  await formatFile(new MemoryFile('disk.qcow2', { content }), options);
  const file = HeldFile.over(new MemoryFile('disk.qcow2', { content }));
  let format: Qcow2Image | undefined;
  const image = await openOver({ file, dataFile: undefined, backing: undefined }, (opened) => {
    format = opened;
  });
  await image.write(cluster, 0);
  await image.flush();
  return { image, metadata: format!.metadata };
}

const cluster = new Uint8Array(4096).fill(3);

/** The warning of a stall, after which no other one comes. */
async function stallOf(until: () => Promise<unknown>): Promise<string> {
  const warnings: (Error & { code?: string })[] = [];
  const note = (warning: Error): void => {
    warnings.push(warning);
  };
  process.on('warning', note);
  // What waits here does not keep the process alive.
  const alive = setInterval(() => undefined, limitMs);
  try {
    if (warnings.length === 0) await once(process, 'warning');
    await sleep(2 * limitMs);
  } finally {
    await until();
    process.off('warning', note);
    clearInterval(alive);
  }
  assert.deepEqual(
    warnings.map(({ code }) => code),
    ['COWHERD_STALLED'],
  );
  return warnings[0].message;
}

test('a gate that stays closed is named, with the thread that holds it', async () => {
  const { image, metadata } = await openDisk();
  await closeGate(metadata.control);
  const write = image.write(cluster, 8192);
  const message = await stallOf(async () => {
    openGate(metadata.control);
    await write;
  });
  assert.match(
    message,
    /^'disk.qcow2': waiting for \d+ s for the gate, which thread 0 has held for \d+ s$/,
  );
  await image.close();
});

test('a mutex that is held is named, whether by this thread or by another', async () => {
  const { image, metadata } = await openDisk();
  for (const [word, name] of [
    [ControlWord.l1Mutex, 'the L1 mutex'],
    [ControlWord.refcountMutex, 'the refcount mutex'],
  ] as const) {
    const { control } = metadata;
    const hold = new Hold();
    // One of its own, as each thread has.
    const held = new LongMutex(control, word).runExclusive(() => hold.gone);
    const waiting = new LongMutex(control, word).runExclusive(() => Promise.resolve());
    const message = `${name}, which thread 0 has held for 0 s`;
    await sleep(1);
    assert.equal(control.describe(word), message);
    hold.letGo();
    await Promise.all([held, waiting]);
    assert.equal(control.describe(word), `${name}, which nobody holds`);
  }
  const hold = new Hold();
  const mutex = new LongMutex(metadata.control, ControlWord.flushMutex);
  const held = mutex.runExclusive(() => hold.gone);
  const waiting = mutex.runExclusive(() => Promise.resolve());
  const message = await stallOf(async () => {
    hold.letGo();
    await Promise.all([held, waiting]);
  });
  assert.match(message, /for the flush mutex, which thread 0 has held for \d+ s$/);
  await image.close();
});

test('a cluster that is being written is named, with the queue that writes it', async () => {
  const { image } = await openDisk();
  const queue = await image.openQueue();
  HeldFile.held = ({ kind, length }) => kind === 'write' && length === 512;
  const first = queue.write(cluster.subarray(0, 512), 16384);
  await sleep(10);
  const second = image.write(cluster.subarray(0, 512), 16384 + 512);
  const message = await stallOf(async () => {
    HeldFile.hold.letGo();
    await Promise.all([first, second]);
  });
  assert.match(
    message,
    /for the L2 entries of guest bytes from 0 to \d+, clusters of which queue 1 of thread 0 claimed last$/,
  );
  HeldFile.held = undefined;
  await image.close();
});

test('closing names the queue that it waits for', async () => {
  const { image } = await openDisk();
  HeldFile.hold = new Hold();
  HeldFile.held = ({ kind, length }) => kind === 'read' && length === 1024;
  const read = image.read(new Uint8Array(1024), 512);
  const closing = image.close();
  const message = await stallOf(async () => {
    HeldFile.hold.letGo();
    await Promise.all([read, closing]);
  });
  assert.match(message, /for queue 0 of thread 0, which still has requests under way$/);
  HeldFile.held = undefined;
});

test('watching keeps no process alive, and costs nothing where it is turned off', async () => {
  const place = new URL('../../src/engine/words/watchdog.js', import.meta.url).href;
  const script = `const { Watchdog } = await import('${place}');
    void new Watchdog('x', 60000).watch(new Promise(() => undefined), () => 'nothing');`;
  const { code } = await run(process.execPath, ['--input-type=module', '-e', script]);
  assert.equal(code, 0);
  const never = new Watchdog('x', Infinity);
  never.tell(1e9, () => assert.fail('told of'));
});
