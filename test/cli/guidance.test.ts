/** What helps people to command lines is made of what the commands say of themselves: help, completion, the manual. */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { commands } from '../../src/cli/commands.js';
import { packageFolder } from '../../src/package-folder.js';
import { runCowherd } from '../support/both-tools.js';
import { needsTool, run, runOk, temporaryFolder } from '../support/tools.js';

test('`help` says what `--help` says', async (t) => {
  const folder = await temporaryFolder(t);
  for (const { name } of commands) {
    const asked = await runCowherd(['help', name], folder);
    assert.deepEqual(asked, await runCowherd([name, '--help'], folder));
    assert.equal(asked.code, 0);
  }
  assert.deepEqual(await runCowherd(['help'], folder), await runCowherd(['--help'], folder));
  assert.equal((await runCowherd(['help', 'nonsense'], folder)).code, 1);
  assert.equal((await runCowherd(['help', 'info', 'map'], folder)).code, 1);
  assert.equal((await runCowherd(['completion', 'tcsh'], folder)).code, 1);
  assert.equal((await runCowherd(['completion'], folder)).code, 1);
});

test('the manual has every command and option, and is what the package has', async (t) => {
  const folder = await temporaryFolder(t);
  const { stdout: page } = await runCowherd(['help', '--man'], folder);
  for (const { name, options } of commands) {
    const section = page.split('.SS "cowherd ').find((part) => part.startsWith(`${name} `));
    assert.ok(section !== undefined, name);
    for (const { long, short } of Object.values(options)) {
      const form =
        long === undefined
          ? `\\fB\\-${short ?? ''}`
          : `\\fB\\-\\-${long.replaceAll('-', '\\-')}\\fR`;
      assert.ok(section.includes(form), `${name} ${form}`);
    }
  }
  assert.match(page, /^[\n -~]*$/);
  const own = await readFile(new URL('dist/bundle/cowherd.1', packageFolder), 'utf8');
  assert.equal(own, page);
  if (!needsTool(t, 'groff')) return;
  await writeFile(path.join(folder, 'page'), page);
  const { stderr, code } = await run('groff', ['-man', '-Tutf8', '-ww', 'page'], { cwd: folder });
  assert.deepEqual([code, stderr], [0, '']);
});

/** What bash completes of a command line, of which the last word is being typed. */
async function completed(folder: string, ...words: readonly string[]): Promise<readonly string[]> {
  const list = ['cowherd', ...words].map((word) => `'${word}'`).join(' ');
  const script = `. ./completion; COMP_WORDS=(${list}); COMP_CWORD=${words.length}; _cowherd; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const text = await runOk('bash', ['-c', script], { cwd: folder });
  return text.split('\n').filter((line) => line !== '');
}

test('bash completes commands, options, and what they take', async (t) => {
  if (!needsTool(t, 'bash')) return;
  const folder = await temporaryFolder(t);
  const { stdout } = await runCowherd(['completion', 'bash'], folder);
  await writeFile(path.join(folder, 'completion'), stdout);
  await writeFile(path.join(folder, 'disk.qcow2'), '');
  assert.deepEqual(await completed(folder, 'conv'), ['convert']);
  assert.deepEqual(await completed(folder, ''), [
    ...commands.map(({ name }) => name),
    '--help',
    '--version',
  ]);
  assert.deepEqual(await completed(folder, 'convert', '-O', 'qc'), ['qcow', 'qcow2']);
  assert.deepEqual(await completed(folder, 'check', '-r', ''), ['leaks', 'all']);
  assert.deepEqual(await completed(folder, 'resize', '--sh'), ['--shrink']);
  assert.deepEqual(await completed(folder, 'info', 'dis'), ['disk.qcow2']);
  assert.deepEqual(await completed(folder, 'completion', 'f'), ['fish']);
  for (const { name, options } of commands) {
    const forms = Object.values(options).flatMap(({ short, long }) => [
      ...(short === undefined ? [] : [`-${short}`]),
      ...(long === undefined ? [] : [`--${long}`]),
    ]);
    assert.deepEqual(await completed(folder, name, '-'), forms, name);
  }
});

for (const shell of ['zsh', 'fish']) {
  test(`the script for ${shell} has every command and option`, async (t) => {
    const folder = await temporaryFolder(t);
    const { stdout, code } = await runCowherd(['completion', shell], folder);
    assert.equal(code, 0);
    for (const { name, options } of commands) {
      assert.ok(stdout.includes(name), name);
      for (const { long } of Object.values(options)) {
        if (long === undefined) continue;
        const form = shell === 'fish' ? ` -l ${long}` : `--${long}`;
        assert.ok(stdout.includes(form), `${name} ${form}`);
      }
    }
    await writeFile(path.join(folder, 'completion'), stdout);
    const { code: found } = await run('sh', ['-c', `command -v ${shell}`], { cwd: folder });
    if (found === 0) await runOk(shell, ['-n', 'completion'], { cwd: folder });
    else t.diagnostic(`${shell} is missing: its grammar is not tried`);
  });
}
