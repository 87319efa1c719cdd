/** The tree's rules are seen to fail, each on a violation that was planted. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { SourceText } from './source-tree.js';
import {
  deadExports,
  importCircles,
  messageReaders,
  namedOutside,
  upwardBetweenRooms,
  upwardImports,
  wrongDependencies,
} from './tree-rules.js';

/** Sources by their names. */
function tree(files: Readonly<Record<string, string>>): SourceText[] {
  return Object.entries(files).map(([name, text]) => ({ name, text }));
}

const layers = { top: ['src/ground/'], ground: [] };

test('an import of a layer above is found, however it is written', () => {
  for (const line of [
    `import { a } from '../top/a.js';`,
    `import type { A } from '../top/a.js';`,
    `export { a } from '../top/a.js';`,
    `export * from '../top/a.js';`,
    `const a = await import('../top/a.js');`,
    `let a: import('../top/a.js').A;`,
  ]) {
    const sources = tree({ 'src/top/a.ts': '', 'src/ground/b.ts': line });
    assert.deepEqual(upwardImports(sources, layers, []), ['src/ground/b.ts imports src/top/a.ts']);
  }
  const sources = tree({ 'src/top/a.ts': `import '../ground/b.js';`, 'src/ground/b.ts': '' });
  assert.deepEqual(upwardImports(sources, layers, []), []);
});

test('a file in no layer is found, and a leaf that imports more than leaves', () => {
  const sources = tree({ 'src/attic/a.ts': '', 'src/leaf.ts': `import './top/a.js';` });
  assert.deepEqual(upwardImports(sources, layers, ['src/leaf.ts']), [
    'src/attic/a.ts lies in no known layer',
    'src/leaf.ts imports src/top/a.ts',
  ]);
});

test('an import of a room above is found, and a file that lies in no room', () => {
  const sources = tree({
    'src/house/cellar/a.ts': `import '../hall/b.js'; import '../../other/c.js';`,
    'src/house/hall/b.ts': `import '../cellar/a.js'; import './d.js'; import '../door.js';`,
    'src/house/hall/d.ts': '',
    'src/house/door.ts': `import './hall/b.js';`,
    'src/house/shed/e.ts': '',
  });
  assert.deepEqual(upwardBetweenRooms(sources, 'src/house/', ['cellar', 'hall', '']), [
    'src/house/cellar/a.ts imports src/house/hall/b.ts',
    'src/house/hall/b.ts imports src/house/door.ts',
    'src/house/shed/e.ts lies in no known room',
  ]);
});

test('a name that only one folder may know is found elsewhere, and an import from its rooms', () => {
  const sources = tree({
    'src/format/registry.ts': `import './raw/a.js';`,
    'src/format/raw/a.ts': `export const name = 'raw';`,
    'src/image/b.ts': `import '../format/raw/a.js'; const isRaw = name === 'raw';`,
    'src/image/c.ts': 'type Format = `raw` | "qcow2"; const text = "raw data";',
    'src/image/d.ts': `import '../format/registry.js';`,
  });
  assert.deepEqual(namedOutside(sources, 'src/format/', ['raw'], ['raw', 'qcow2']), [
    'src/image/b.ts imports src/format/raw/a.ts',
    'src/image/b.ts names raw',
    'src/image/c.ts names raw',
    'src/image/c.ts names qcow2',
  ]);
});

test('a circle of imports is found, types included', () => {
  const sources = tree({
    'src/a.ts': `import './b.js';`,
    'src/b.ts': `import type { C } from './c.js';`,
    'src/c.ts': `import './a.js'; import './d.js';`,
    'src/d.ts': '',
  });
  assert.deepEqual(importCircles(sources), ['src/a.ts > src/b.ts > src/c.ts > src/a.ts']);
  assert.deepEqual(importCircles(sources.slice(1)), []);
});

test('an export that nobody imports is found', () => {
  const sources = tree({
    'src/a.ts': `export const used = 1, dead = 2; export interface Dead {}
      export interface Part {} export function f(part: Part) {}`,
    'src/b.ts': `export type { Given } from './c.js'; export class All {}`,
    'src/index.ts': `export { used as renamed } from './a.js';`,
  });
  const users = tree({ 'test/b.ts': `import * as b from '../src/b.js';` });
  assert.deepEqual(deadExports(sources, [...sources, ...users], ['src/index.ts']), [
    'src/a.ts: dead',
    'src/a.ts: Dead',
    'src/a.ts: f',
  ]);
});

test('a package that is imported and not declared is found, and one that is not used', () => {
  const sources = tree({
    'src/a.ts': `import 'node:fs'; import '@x/y/z'; import 'path'; import 'w';`,
  });
  const others = tree({ 'tsconfig.json': `"types": ["v"]` });
  assert.deepEqual(wrongDependencies(sources, ['w', 'v', 'u'], others), [
    'src/a.ts imports @x/y, which is not declared',
    'u is declared, and not used',
  ]);
});

test('a decision by the text of a message is found, and no other use of it', () => {
  for (const line of [
    "if (error.message.startsWith('a')) b();",
    'const { message } = error; message.slice(1);',
    "if (error.message === 'a') b();",
    "if ('a' !== message) b();",
    'if (/a/.test(error.message)) b();',
    'const found = /a/.exec(message);',
  ]) {
    assert.deepEqual(messageReaders(tree({ 'src/a.ts': line })), ['src/a.ts:1 reads a message']);
  }
  for (const line of [
    'throw new Error(`a: ${error.message}`);',
    'print(error.message);',
    'if (message === undefined) b();',
    'worker.message.port.close();',
  ]) {
    assert.deepEqual(messageReaders(tree({ 'src/a.ts': line })), []);
  }
});
