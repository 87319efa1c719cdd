/** `amend` changes the passwords of encrypted images as qemu-img does, and says the same: one image for each program. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { openImage } from '../../../src/image/graph/open.js';
import { runCowherd, runQemuImg } from '../../support/both-tools.js';
import { needsTool, run, temporaryFolder } from '../../support/tools.js';

const passwords = ['one', 'two', 'three', 'four'];
const objects = passwords.flatMap((each) => ['--object', `secret,id=${each},data=${each}`]);
const keySecret = { qcow2: 'encrypt.key-secret', luks: 'key-secret' };
const prefix = { qcow2: 'encrypt.', luks: '' };

type EncryptedFormat = 'qcow2' | 'luks';

const named = (format: EncryptedFormat, id: string): string[] => [
  '--image-opts',
  `driver=${format},file.filename=disk,${keySecret[format]}=${id}`,
];

/** A new image in each of two folders: one for cowherd, one for qemu-img. */
async function makeBoth(t: TestContext, format: EncryptedFormat, more = ''): Promise<string[]> {
  const folders = [await temporaryFolder(t), await temporaryFolder(t)];
  const encrypted = format === 'qcow2' ? 'encrypt.format=luks,' : '';
  const options = `${encrypted}${keySecret[format]}=one,${prefix[format]}iter-time=10${more}`;
  for (const folder of folders) {
    const words = ['create', '-q', '-f', format, ...objects, '-o', options, 'disk', '256k'];
    const made = await runQemuImg(words, folder);
    assert.equal(made.code, 0, made.stderr);
  }
  return folders;
}

/** Which of the passwords open an image, by qemu-img. */
async function opening(format: EncryptedFormat, folder: string): Promise<string[]> {
  const known: string[] = [];
  for (const id of passwords) {
    const words = ['map', '--output=json', ...objects, ...named(format, id)];
    if ((await runQemuImg(words, folder)).code === 0) known.push(id);
  }
  return known;
}

/** What is asked for, one after the other, opened by which password. */
const steps: readonly (readonly [string, string, ...string[]])[] = [
  ['one', 'new-secret=two'],
  ['one', 'state=other'],
  ['one', 'state=active'],
  ['one', 'state=active,new-secret=two,old-secret=one'],
  ['one', 'state=active,new-secret=nobody'],
  ['one', 'state=active,new-secret=two,keyslot=x'],
  ['one', 'state=active,new-secret=two,keyslot=8'],
  ['one', 'state=active,new-secret=two,keyslot=-1'],
  ['one', 'state=active,new-secret=two,keyslot=0'],
  ['one', 'state=active,new-secret=two,iter-time=10'],
  ['two', 'state=active,new-secret=three,keyslot=5,iter-time=10'],
  ['two', 'state=active,new-secret=three,iter-time=10'],
  ['two', 'state=inactive'],
  ['two', 'state=inactive,new-secret=two'],
  ['two', 'state=inactive,old-secret=one,iter-time=10'],
  ['two', 'state=inactive,old-secret=nobody'],
  ['two', 'state=inactive,old-secret=four'],
  ['two', 'state=inactive,keyslot=1,old-secret=one'],
  ['two', 'state=inactive,keyslot=7'],
  ['two', 'state=inactive,keyslot=9'],
  ['two', 'state=inactive,old-secret=three'],
  ['one', 'state=active,new-secret=four,keyslot=1,iter-time=10', '--force'],
  ['two', 'state=inactive,keyslot=1'],
  ['four', 'state=inactive,keyslot=0'],
  ['four', 'state=inactive,keyslot=1'],
  ['four', 'state=inactive,old-secret=four'],
  ['four', 'size=512k'],
  ['four', 'cipher-alg=aes-128'],
  ['four', 'unknown=1'],
  ['four', 'state=inactive,old-secret=four', '--force'],
];

for (const format of ['qcow2', 'luks'] as const) {
  test(`passwords of ${format} come and go`, { timeout: 300_000 }, async (t) => {
    if (!needsTool(t, 'qemu-img')) return;
    const [ours, theirs] = await makeBoth(t, format);
    assert.deepEqual(await opening(format, ours), ['one']);
    for (const [id, list, ...more] of steps) {
      const options = list
        .split(',')
        .map((each) => (each.startsWith('size') ? each : prefix[format] + each))
        .join(',');
      const words = ['amend', ...more, ...objects, '-o', options, ...named(format, id)];
      const expected = await runQemuImg(words, theirs);
      const actual = await runCowherd(words, ours);
      const what = `${id}: ${list} ${more.join(' ')}`;
      assert.equal(actual.code, expected.code, `${what}: ${actual.stderr} ${expected.stderr}`);
      assert.equal(actual.stderr, expected.stderr, what);
      assert.equal(actual.stdout, expected.stdout, what);
      if (expected.code !== 0) continue;
      assert.deepEqual(await opening(format, ours), await opening(format, theirs), what);
    }
    assert.deepEqual(await opening(format, ours), []);
  });
}

test('an image that is not encrypted so has no passwords to change', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const list = 'encrypt.state=active,encrypt.new-secret=two';
  const legacy = ['-o', 'encrypt.format=aes,encrypt.key-secret=one'];
  await runQemuImg(['create', '-q', '-f', 'qcow2', ...objects, ...legacy, 'disk', '64k'], folder);
  await runQemuImg(['create', '-q', '-f', 'qcow2', 'plain', '64k'], folder);
  await runQemuImg(['create', '-q', '-f', 'raw', 'raw', '64k'], folder);
  for (const name of [named('qcow2', 'one'), ['plain'], ['-f', 'raw', 'raw']]) {
    const words = ['amend', ...objects, '-o', list, ...name];
    const expected = await runQemuImg(words, folder);
    const actual = await runCowherd(words, folder);
    assert.deepEqual(
      [actual.code, actual.stdout, actual.stderr],
      [expected.code, expected.stdout, expected.stderr],
    );
  }
});

test('`-o help` lists what can change of luks', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const words = ['amend', '-f', 'luks', '-o', 'help'];
  assert.equal((await runCowherd(words, folder)).stdout, (await runQemuImg(words, folder)).stdout);
});

for (const format of ['qcow2', 'luks'] as const) {
  test(`programs change the passwords of ${format} while queues write`, async (t) => {
    if (!needsTool(t, 'qemu-img')) return;
    const [folder] = await makeBoth(t, format, format === 'qcow2' ? ',compat=0.10' : '');
    const image = await openImage(path.join(folder, 'disk'), {
      format,
      encrypt: { secret: 'one' },
    });
    try {
      await using queue = await image.openQueue();
      const over = new AbortController();
      const writing = (async () => {
        for (let at = 0; !over.signal.aborted; at = (at + 4096) % (256 * 1024)) {
          await queue.write(Buffer.alloc(4096, 7), at);
        }
      })();
      const other = { state: 'active', newSecret: 'two', iterTime: 10 } as const;
      const changes = format === 'qcow2' ? ({ compat: '1.1', refcountBits: 64 } as const) : {};
      await image.amend({ ...changes, encrypt: other });
      await image.amend({ encrypt: { state: 'inactive', oldSecret: Buffer.from('one') } });
      // The disk stays open, whichever password it was opened by.
      await image.amend({ encrypt: { state: 'active', newSecret: 'three', iterTime: 10 } });
      await assert.rejects(image.amend({ encrypt: { state: 'inactive', keyslot: 6 } }), {
        code: 'ERR_COWHERD_INVALID_ARGUMENT',
        message: /already erased/,
      });
      await assert.rejects(image.amend({ encrypt: { state: 'inactive', keyslot: 1.5 } }), {
        code: 'ERR_COWHERD_INVALID_ARGUMENT',
        message: /encrypt.*keyslot/,
      });
      over.abort();
      await writing;
      await queue.write(Buffer.alloc(256 * 1024, 7), 0);
    } finally {
      await image.close();
    }
    assert.deepEqual(await opening(format, folder), ['two', 'three']);
    const read = ['-c', 'read -P 7 0 256k', ...named(format, 'three')];
    const { code, stdout } = await run('qemu-io', [...objects, ...read], { cwd: folder });
    assert.equal(code, 0, stdout);
    assert.doesNotMatch(stdout, /verification failed/);
  });
}
