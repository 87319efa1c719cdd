/** Runs what the documents in docs/ show. */
import assert from 'node:assert/strict';
import { access, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { commands } from '../src/cli/commands.js';
import type { OptionSpec } from '../src/cli/options/options.js';
import { knownFeatureTable, nameFeatures } from '../src/format/qcow2/layout/feature-names.js';
import { ExtensionType } from '../src/format/qcow2/layout/header-extensions.js';
import { filterList } from '../src/storage/filters/registry.js';
import { runCowherd } from './support/both-tools.js';
import {
  type Snippet,
  commandLines,
  documentText,
  runScript,
  snippetsOf,
  workplace,
} from './support/printed.js';
import { projectFolder, run } from './support/tools.js';

/** The fenced blocks of a document in a language. */
async function snippets(name: string, language: string): Promise<readonly Snippet[]> {
  const all = snippetsOf(await documentText(`docs/${name}`));
  return all.filter((snippet) => snippet.language === language);
}

test('a storage of a program’s own, as printed, keeps every promise', async (t) => {
  const [program] = await snippets('extending.md', 'js');
  const { folder } = await workplace(t);
  await writeFile(path.join(folder, 'storage.mjs'), program.text);
  const { stdout, code } = await run(process.execPath, ['storage.mjs'], {
    cwd: folder,
    // Otherwise it would take itself for a file of this run.
    env: { NODE_TEST_CONTEXT: '' },
  });
  assert.equal(code, 0, stdout);
  assert.match(stdout, /^# pass [3-9]\d$/m);
  assert.match(stdout, /^# fail 0$/m);
});

test('filters, as printed', async (t) => {
  const place = await workplace(t);
  const { folder, env } = place;
  await writeFile(path.join(folder, 'disk.raw'), Buffer.alloc(1 << 20, 'filters'));
  const made = await runCowherd(['convert', '-O', 'qcow2', 'disk.raw', 'disk.qcow2'], folder);
  assert.equal(made.code, 0, made.stderr);
  const commands = await snippets('filters.md', 'sh');
  for (const line of commands.flatMap(commandLines)) {
    const { code, stderr } = await run('sh', ['-c', line], { cwd: folder, env });
    const failure = line.includes('errno=ENXIO')
      ? /^cowherd: [^\n]*No such device or address\n$/
      : /^cowherd: [^\n]*Input\/output error\n$/;
    const expected = line.startsWith('! ') ? failure : /^$/;
    assert.deepEqual([line, code], [line, 0]);
    assert.match(stderr, expected);
  }
  const [program] = await snippets('filters.md', 'js');
  assert.equal(await runScript(program, 'filters.mjs', place), '');
  const [disk, copy] = await Promise.all(
    ['disk.raw', 'copy.raw'].map((name) => readFile(path.join(folder, name))),
  );
  assert.ok(copy.equals(disk));
});

test('the page of filters has each, in the words of its help', async () => {
  const text = await documentText('docs/filters.md');
  for (const { name, help } of filterList()) {
    assert.ok(
      text.split('\n').some((line) => line.startsWith(`| \`${name}\``) && line.includes(help)),
      name,
    );
  }
});

test('the page of qemu-img has every option of its commands, no others, and tests that exist', async () => {
  const text = await readFile(path.join(projectFolder, 'docs', 'qemu-img.md'), 'utf8');
  for (const [, name, section] of text.matchAll(/^## ([a-z]+)\n(.*?)(?=^## )/gms)) {
    const command = commands.find((candidate) => candidate.name === name);
    assert.ok(command !== undefined, name);
    const told = [...section.matchAll(/^\| (`-.*?) +\|/gm)].flatMap(([, cell]) =>
      [...cell.matchAll(/`(.*?)`/g)].map(([, form]) => form),
    );
    const taken = Object.values<OptionSpec>(command.options).flatMap(
      ({ short, long, aliases = [] }) => [
        ...(short === undefined ? [] : [`-${short}`]),
        ...[...(long === undefined ? [] : [long]), ...aliases].map((form) => `--${form}`),
      ],
    );
    assert.deepEqual(told.toSorted(), taken.toSorted(), name);
    for (const [, file] of section.matchAll(/`(test\/[^`]*)`/g)) {
      await access(path.join(projectFolder, `${file}.ts`));
    }
  }
});

test('the page of the format has each feature and each header extension, with tests that exist', async () => {
  const text = await readFile(path.join(projectFolder, 'docs', 'format.md'), 'utf8');
  const section = /^## Feature bits[^\n]*\n(.*?)^## /ms.exec(text)?.[1];
  assert.ok(section !== undefined);
  const rows = [
    ...section.matchAll(/^\| (incompatible|compatible|autoclear) bit (\d+) +\| `(.*?)`/gm),
  ];
  const told = rows.map(([, kind, bit, name]) => `${kind} ${bit} ${name}`);
  const table = knownFeatureTable();
  const known = (['incompatible', 'compatible', 'autoclear'] as const).flatMap((kind) =>
    Array.from({ length: 64 }, (_, bit) => ({ kind, bit, mask: 1n << BigInt(bit) })),
  );
  assert.deepEqual(
    told,
    known.flatMap(({ kind, bit, mask }) =>
      nameFeatures(table, kind, mask)
        .filter((name) => !name.startsWith('Unknown '))
        .map((name) => `${kind} ${bit} ${name}`),
    ),
  );
  const extensions = [...section.matchAll(/^\| `0x([\da-f]{8})`/gm)].map(([, type]) =>
    Number.parseInt(type, 16),
  );
  const { end, ...types } = ExtensionType;
  assert.equal(end, 0);
  assert.deepEqual(extensions.toSorted(), Object.values(types).toSorted());
  const files = [...section.matchAll(/`(test\/[^`]*)`/g)].map(([, file]) => file);
  assert.ok(files.length >= told.length + extensions.length);
  for (const file of files) await access(path.join(projectFolder, `${file}.ts`));
});
