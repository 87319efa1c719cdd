/** Damage that one thread meets keeps every thread from writing, and a commander hears of it. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { copyFile, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';
import { CowherdError } from '../../src/errors.js';
import type { Image, ImageHandle } from '../../src/image/api/image.js';
import { attachImage } from '../../src/image/threads/attach.js';
import { openImage } from '../../src/image/graph/open.js';
import { CorruptionBases, imageName } from '../support/corruption-bases.js';
import { DamagedImage, plain } from '../support/damaged-image.js';
import { cowherdProgram, needsTool, run, temporaryFolder } from '../support/tools.js';

const clusterSize = 4096;
/** Mapped and whole, so that its writes go the shortest way. */
const mapped = 2 * clusterSize;
const unwritten = 64 * 1024;

/** What a thread says of a request. */
interface Said {
  readonly code: string;
  readonly message: string;
}

async function attempt(request: () => Promise<void>): Promise<Said> {
  try {
    await request();
    return { code: 'ok', message: '' };
  } catch (error) {
    if (!(error instanceof CowherdError)) throw error;
    return { code: error.code, message: error.message };
  }
}

const write = (image: Image, offset: number): Promise<void> =>
  image.write(new Uint8Array(clusterSize).fill(0xee), offset);

/** Writes on the word `write`, and ends on any other. */
async function work(handle: ImageHandle): Promise<void> {
  const image = await attachImage(handle);
  const port = parentPort!;
  port.postMessage(await attempt(() => write(image, mapped)));
  for await (const [word] of on()) {
    if (word !== 'write') break;
    port.postMessage(await attempt(() => write(image, mapped)));
    port.postMessage(await attempt(() => image.read(new Uint8Array(clusterSize), mapped)));
  }
  port.postMessage(await attempt(() => image.close()));
  port.close();
}

async function* on(): AsyncGenerator<[string]> {
  for (;;) yield (await once(parentPort!, 'message')) as [string];
}

async function damagedImage(t: TestContext): Promise<string> {
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk.qcow2');
  await copyFile(path.join(await new CorruptionBases(folder).folderOf(plain), imageName), file);
  const image = new DamagedImage(file);
  image.count(image.pointer(image.l1Offset) / clusterSize, 0);
  await writeFile(file, image.bytes);
  return file;
}

async function next(worker: Worker): Promise<Said> {
  const [said] = (await once(worker, 'message')) as [Said];
  return said;
}

if (!isMainThread) await work((workerData as { readonly handle: ImageHandle }).handle);
else runTests();

function runTests(): void {
  test('damage that one thread meets stops the writes of the others', async (t) => {
    if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
    const file = await damagedImage(t);
    const image = await openImage(file);
    const worker = new Worker(fileURLToPath(import.meta.url), {
      workerData: { handle: image.handle() },
    });
    assert.deepEqual(await next(worker), { code: 'ok', message: '' });
    await assert.rejects(write(image, unwritten), {
      code: 'ERR_COWHERD_CORRUPT',
      message: /disk\.qcow2': an allocation would hit an active L2 table at host offset \d+/,
    });
    assert.equal((await readFile(file)).readUInt32BE(76) & 2, 2);
    worker.postMessage('write');
    const refused = await next(worker);
    assert.equal(refused.code, 'ERR_COWHERD_CORRUPT');
    assert.match(refused.message, /disk\.qcow2' was found to be corrupt/);
    assert.equal((await next(worker)).code, 'ok');
    worker.postMessage('close');
    assert.equal((await next(worker)).code, 'ERR_COWHERD_CORRUPT');
    await assert.rejects(image.close(), { code: 'ERR_COWHERD_CORRUPT' });
  });

  test('the level can be named where an image is named by options', async (t) => {
    if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
    const bench = async (file: string, options: string) =>
      run(process.execPath, [
        ...[cowherdProgram, 'bench', '--image-opts', '-w', '-c', '1', '-o', String(unwritten)],
        `driver=qcow2,file.filename=${file}${options}`,
      ]);
    const checked = await damagedImage(t);
    const refused = await bench(checked, '');
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /^cowherd: Failed request: [^\n]*an active L2 table[^\n]*\n$/);
    assert.equal((await bench(await damagedImage(t), ',overlap-check=constant')).code, 0);
    for (const options of [
      'driver=qcow2,overlap-check=most',
      'driver=raw,overlap-check=all',
      'driver=qcow2,overlap-check=all,overlap-check.template=none',
    ]) {
      const words = ['info', '--image-opts', `file.filename=${checked},${options}`];
      const [ours, theirs] = await Promise.all([
        run(process.execPath, [cowherdProgram, ...words]),
        run('qemu-img', words),
      ]);
      assert.equal(ours.code, theirs.code);
      assert.equal(ours.stderr.replace(/^cowherd:/, 'qemu-img:'), theirs.stderr);
    }
  });
}
