/** The same rules over the same images have the same requests fail here and in QEMU. */
import assert from 'node:assert/strict';
import { copyFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { runCowherd, runQemuImg } from '../../../support/both-tools.js';
import { needsTool, run, temporaryFolder } from '../../../support/tools.js';

/** A folder with an image that has data, and a file of rules. */
async function rules(t: TestContext, text: string): Promise<string> {
  const folder = await temporaryFolder(t);
  await runCowherd(['create', '-q', '-f', 'qcow2', 'disk', '4M'], folder);
  await runCowherd(['io', '-c', 'write -P 7 0 1M', 'disk'], folder);
  await writeFile(path.join(folder, 'rules'), text);
  return folder;
}

/** What both programs print for commands on the image, figures left out. */
async function both(
  folder: string,
  name: string,
  commands: readonly string[],
): Promise<readonly [ours: string, theirs: string]> {
  const words = [...commands.flatMap((each) => ['-c', each]), name];
  await copyFile(path.join(folder, 'disk'), path.join(folder, 'before'));
  const ours = await runCowherd(['io', ...words], folder);
  await copyFile(path.join(folder, 'before'), path.join(folder, 'disk'));
  const theirs = await run('qemu-io', words, { cwd: folder });
  const told = (text: string): string => text.replace(/^.*ops; .*\n/gm, '');
  return [told(ours.stdout + ours.stderr), told(theirs.stdout + theirs.stderr)];
}

const reading = ['read -P 7 0 64k', 'read -P 7 64k 64k', 'read -P 7 0 64k'];

for (const [what, text, commands] of [
  ['a rule that is met once', '[inject-error]\nevent = "read_aio"\nonce = "on"\n', reading],
  ['a rule that is met for good', '[inject-error]\nevent = "read_aio"\nerrno = "28"\n', reading],
  ['a rule about loading tables', '# tables\n[inject-error]\nevent = "l2_load"\n', reading],
  ['an errno of none', '[inject-error]\nevent = "read_aio"\nerrno = "0"\n', reading],
  [
    'a state that another event leads to',
    '[set-state]\nevent = "read_aio"\nstate = "1"\nnew_state = "2"\n[inject-error]\nevent = "read_aio"\nstate = "2"\nonce = "on"\n',
    reading,
  ],
  [
    'a write that is to fail',
    '[inject-error "one"]\nevent = "write_aio"\niotype = "write"\nonce = "on"\n',
    ['write -P 1 0 64k', 'read -P 7 0 64k', 'write -P 2 0 64k', 'read -P 2 0 64k'],
  ],
  [
    'writes of new clusters that are to fail',
    '[inject-error]\nevent = "write_aio"\nerrno = "5"\nonce = "on"\n',
    ['write 2M 64k', 'read -P 0 2M 64k', 'write -P 3 2M 64k', 'read -P 3 2M 64k'],
  ],
] as const) {
  test(`${what} comes to the same as in QEMU`, async (t) => {
    if (!needsTool(t, 'qemu-io')) return;
    const folder = await rules(t, text);
    const [ours, theirs] = await both(folder, 'blkdebug:rules:disk', commands);
    assert.equal(ours, theirs);
    const checked = await runQemuImg(['check', 'disk'], folder);
    assert.ok([0, 3].includes(checked.code), checked.stdout + checked.stderr);
  });
}

test('requests are stopped at breakpoints, and go on, as in QEMU', async (t) => {
  if (!needsTool(t, 'qemu-io')) return;
  const folder = await rules(t, '');
  const [ours, theirs] = await both(folder, 'blkdebug::disk', [
    ...['break write_aio A', 'aio_write -P 5 0 64k', 'wait_break A', 'resume A', 'aio_flush'],
    ...['read -P 5 0 64k', 'break read_aio B', 'remove_break B', 'read -P 5 0 64k'],
    ...['break nonsense C', 'resume X', 'remove_break X'],
  ]);
  assert.equal(ours, theirs);
});

const json = (rule: object): string =>
  `json:${JSON.stringify({ driver: 'qcow2', file: { driver: 'blkdebug', image: { driver: 'file', filename: 'disk' }, ...rule } })}`;

test('rules of a name are those of a file, and lie over images too', async (t) => {
  if (!needsTool(t, 'qemu-io')) return;
  const folder = await rules(t, '');
  for (const name of [
    json({
      'inject-error': [
        { event: 'read_aio', sector: 0 },
        { event: 'l2_load', once: true },
      ],
    }),
    json({ 'set-state': [{ event: 'none', new_state: 3 }], align: 4096 }),
    `json:${JSON.stringify({ driver: 'blkdebug', image: { driver: 'qcow2', file: { driver: 'file', filename: 'disk' } }, 'inject-error': [{ event: 'none', iotype: 'read', sector: 130 }] })}`,
  ]) {
    const [ours, theirs] = await both(folder, name, reading);
    assert.equal(ours, theirs, name);
  }
});

test('what is no rule is refused in one line, as QEMU refuses it', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await rules(t, '[inject-error]\nevent = "nonsense"\n');
  await writeFile(path.join(folder, 'group'), '[nonsense]\n');
  await writeFile(path.join(folder, 'line'), '[inject-error]\nevent: none\n');
  await writeFile(path.join(folder, 'early'), 'event = "none"\n');
  await writeFile(path.join(folder, 'more'), '[inject-error]\nevent = "none"\nmore = "5"\n');
  await writeFile(path.join(folder, 'none'), '[set-state]\nnew_state = "5"\n');
  for (const name of [
    ...['rules', 'group', 'line', 'early', 'more', 'none', 'absent', '.'].map(
      (file) => `blkdebug:${file}:disk`,
    ),
    'blkdebug:disk',
    'blkdebug::absent',
    json({ 'inject-error': [{}] }),
    json({ 'inject-error': [] }),
    json({ 'inject-error': [{ event: 'none', errno: 'five' }] }),
    json({ 'inject-error': { first: { event: 'none' } } }),
    json({ 'set-state': [{ event: 'none' }] }),
    json({ align: 3 }),
    json({ align: 512, 'max-transfer': 100 }),
    json({ nonsense: 5 }),
  ]) {
    const [ours, theirs] = [
      await runCowherd(['info', name], folder),
      await runQemuImg(['info', name], folder),
    ];
    assert.equal(ours.code, 1, name);
    assert.match(ours.stderr, /^cowherd: [^\n]+\n$/);
    // QEMU takes a state that is led to to be 0 if nothing is said.
    if (!name.includes('set-state')) assert.equal(theirs.code, 1, name);
  }
});
