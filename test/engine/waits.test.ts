/** Every wait of the engine for another request, queue or thread names who holds it up, or has an end. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { BufferPool } from '../../src/engine/buffer-pool.js';
import { SliceCache, allocateSliceCache } from '../../src/engine/cache/slice-cache.js';
import { FlushRounds } from '../../src/engine/flush/flush-rounds.js';
import { takeQueueLine } from '../../src/engine/queues/queue-line.js';
import { Turnstile } from '../../src/engine/queues/turnstile.js';
import { Arena } from '../../src/engine/space/arena.js';
import { ControlWord, allocateControlBlock } from '../../src/engine/words/control-block.js';
import { ControlWords } from '../../src/engine/words/control-words.js';
import { LongMutex } from '../../src/engine/words/long-mutex.js';
import { Poison } from '../../src/engine/words/poison.js';
import { SharedWords } from '../../src/engine/words/shared-words.js';
import { lockExclusive, lockShared, unlockShared } from '../../src/engine/words/spin-word.js';
import { Watchdog } from '../../src/engine/words/watchdog.js';
import { Hold, stallOf } from '../support/stalls.js';

const limitMs = 150;

function newControl(): ControlWords {
  const block = allocateControlBlock();
  return new ControlWords(block, new Poison(block, 'disk'), new Watchdog('disk', limitMs));
}

test('a buffer that is lent is named by what it is lent for', async () => {
  const pool = new BufferPool(8, 2, new Watchdog('disk', limitMs));
  const first = await pool.lend(() => 'the write at 0');
  await pool.lend(() => 'the write at 8');
  const third = pool.lend(() => 'the write at 16');
  const message = await stallOf(async () => {
    pool.giveBack(first);
    await third;
  });
  assert.match(message, /one of 2 buffers, all of which are lent, for longest to the write at 0$/);
  const fourth = pool.lend(() => 'the write at 24');
  pool.giveBack(await third);
  await fourth;
});

test('a turn is named by who has it', async () => {
  const turnstile = new Turnstile(new Watchdog('disk', limitMs));
  const turns = ['one', 'two', 'three'].map((name) => turnstile.take(() => name));
  turns[1].end();
  const message = await stallOf(async () => {
    for (const turn of turns) turn.end();
    await turns[2].begins;
  });
  assert.match(message, /for its turn to take clusters, which one has$/);
});

test('a reservation that is shared is named by who holds the mutex of the counts', async () => {
  const memory = newControl();
  const hold = new Hold();
  const mutex = new LongMutex(memory, ControlWord.refcountMutex);
  const reserve = (): ReturnType<ConstructorParameters<typeof Arena>[0]['reserve']> =>
    mutex.runExclusive(async () => {
      await hold.gone;
      return { cluster: 5, length: 2, knownZero: true };
    });
  const line = takeQueueLine(memory);
  const arena = new Arena({ memory, line, clusterSize: 512, diskSize: 1 << 20, reserve });
  const both = Promise.all([arena.obtain(), arena.obtain()]);
  const message = await stallOf(async () => {
    hold.letGo();
    await both;
  });
  assert.match(message, /for the refcount mutex, which thread 0 has held for \d+ s$/);
});

test('a flush round that is shared is named by who leads it', async () => {
  const memory = newControl();
  const holds = [new Hold(), new Hold()];
  let nth = 0;
  const rounds = new FlushRounds(
    memory,
    new LongMutex(memory, ControlWord.flushMutex),
    () => holds[nth++].gone,
    () => undefined,
  );
  const first = rounds.share();
  // It has begun.
  while (nth === 0) await turn();
  const leader = rounds.share();
  const sharer = rounds.share();
  holds[0].letGo();
  await first;
  const message = await stallOf(async () => {
    holds[1].letGo();
    await Promise.all([leader, sharer]);
  });
  assert.equal(nth, 2);
  assert.match(message, /for the flush mutex, which thread 0 has held for \d+ s$/);
});

test('a slice that is loaded is named by the thread that does', async () => {
  const memory = allocateSliceCache(1, 512);
  const watchdog = new Watchdog('disk', limitMs);
  const cache = new SliceCache(memory, () => 0, undefined, undefined, watchdog);
  const other = new SliceCache(memory, () => 0);
  other.thread = 7;
  const hold = new Hold();
  const loading = other.acquire(3, () => hold.gone);
  const waiting = cache.acquire(3, () => assert.fail('it is loaded twice'));
  const message = await stallOf(async () => {
    hold.letGo();
    await Promise.all([loading, waiting]);
  });
  assert.match(message, /for slice 3, which thread 7 loads$/);
});

test('room in a cache is named by the slices that are in use', async () => {
  const watchdog = new Watchdog('disk', limitMs);
  const memory = allocateSliceCache(1, 512);
  const cache = new SliceCache(memory, () => 0, undefined, undefined, watchdog);
  const load = (): Promise<void> => Promise.resolve();
  for (let key = 0; key < cache.slots; key++) await cache.acquire(key, load);
  const waiting = cache.acquire(100, load);
  const message = await stallOf(async () => {
    cache.unpin(0);
    cache.unpin(0 + 1);
    await waiting;
  });
  assert.match(
    message,
    /room in a cache of slices, of which are in use: slice 0; slice 1; .*slice 7$/,
  );
});

test('a spinning word of a thread that has died is not waited for without end', () => {
  const block = allocateControlBlock();
  const poison = new Poison(block, 'disk');
  const words = new SharedWords(new Int32Array(new SharedArrayBuffer(64)), poison, undefined, 20);
  lockShared(words, 0);
  assert.throws(
    () => {
      lockExclusive(words, 0);
    },
    { code: 'ERR_COWHERD_POISONED' },
  );
  assert.ok(poison.isSet, 'others hear of it too');
  unlockShared(words, 0);
  // One that is free is taken, and one that changes is waited for.
  lockExclusive(words, 1);
});

test('who is watched goes on as soon as who is not', async () => {
  const watchdog = new Watchdog('disk', limitMs);
  const hold = new Hold();
  assert.equal(
    watchdog.watch(hold.gone, () => 'it'),
    hold.gone,
  );
  hold.letGo();
  const failure = new Error('no');
  await assert.rejects(
    watchdog.watch(Promise.reject(failure), () => 'it'),
    failure,
  );
});
