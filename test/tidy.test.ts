/** The tree's own rules: layering, size, documentation and style, held by a test, not by habit. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import ts from 'typescript';
import { filesBelow, parse, projectImports, visit } from './support/source-tree.js';
import type { SourceText } from './support/source-tree.js';
import { projectFolder } from './support/tools.js';

const sources = filesBelow(['src'], ['.ts']);
const allTypeScript = [
  ...sources,
  ...filesBelow(['test', 'bench', 'fixtures', 'scripts'], ['.ts']),
];

/** What each layer may import besides itself and the leaves: folders, or path prefixes of files. */
const layers: Readonly<Record<string, readonly string[] | undefined>> = {
  cli: ['src/jobs/', 'src/image/', 'src/native/file-position', 'src/native/restart'],
  export: ['src/image/'],
  jobs: [
    'src/image/',
    'src/native/zero-scan',
    'src/native/aligned-buffer',
    'src/native/host-capacity',
  ],
  image: [
    'src/format/',
    'src/storage/',
    'src/engine/',
    'src/native/zero-scan',
    'src/native/thread-end',
  ],
  format: [
    'src/engine/',
    'src/storage/',
    'src/native/codec',
    'src/native/host-capacity',
    'src/native/zero-scan',
  ],
  engine: ['src/storage/'],
  storage: ['src/native/'],
  native: [],
};
const leaves = [
  'src/byte-names.ts',
  'src/errors.ts',
  'src/limits.ts',
  'src/package-folder.ts',
  'src/system-errors.ts',
  'src/turn-of-others.ts',
];

test('imports point downwards only', () => {
  const wrong: string[] = [];
  for (const source of sources) {
    if (source.name === 'src/index.ts') continue;
    const layer = source.name.split('/')[1];
    const isLeaf = leaves.includes(source.name);
    if (!isLeaf && layers[layer] === undefined) {
      wrong.push(`${source.name} lies in no known layer`);
      continue;
    }
    const allowed = isLeaf ? leaves : [`src/${layer}/`, ...leaves, ...layers[layer]!];
    for (const imported of projectImports(source)) {
      if (!allowed.some((prefix) => imported.startsWith(prefix))) {
        wrong.push(`${source.name} imports ${imported}`);
      }
    }
  }
  assert.deepEqual(wrong, []);
});

test('no file is longer than 600 lines, no function of src longer than 120', () => {
  const wrong: string[] = [];
  for (const source of allTypeScript) {
    const count = source.text.split('\n').length - 1;
    if (count > 600) wrong.push(`${source.name} has ${count} lines`);
  }
  for (const source of sources) {
    const tree = parse(source);
    visit(tree, (node) => {
      if (!ts.isFunctionLike(node)) return;
      const first = tree.getLineAndCharacterOfPosition(node.getStart()).line;
      const last = tree.getLineAndCharacterOfPosition(node.getEnd()).line;
      const length = last - first + 1;
      if (length > 120) wrong.push(`${source.name}:${first + 1} has a function of ${length} lines`);
    });
  }
  assert.deepEqual(wrong, []);
});

test('every source file starts by saying what it is for', () => {
  const wrong = sources.filter(({ text }) => !/^(#!.*\n)?\/\*\*\s+(\*\s+)?[A-Z`]/.test(text));
  assert.deepEqual(names(wrong), []);
});

test('every exported symbol of src has a doc comment', () => {
  const wrong: string[] = [];
  for (const source of sources) {
    const documented = new Set<string>();
    let lastEnd = -1;
    for (const statement of parse(source).statements) {
      const name = declaredName(statement);
      // One comment may stand above lines without a gap, or above what shares its name: overloads,
      // and a type beside the constant it is made of.
      const continues = source.text.slice(lastEnd, statement.getStart()) === '\n';
      const isDocumented =
        ts.getJSDocCommentsAndTags(statement).length > 0 ||
        documented.has(name) ||
        (continues && lastEnd !== -1);
      lastEnd = isDocumented ? statement.getEnd() : -1;
      if (isDocumented) documented.add(name);
      else if (isExportedDeclaration(statement)) {
        wrong.push(`${source.name}: ${statement.getText().split('\n')[0]}`);
      }
    }
  }
  assert.deepEqual(wrong, []);
});

/** The name a statement declares; its text if it declares several or none. */
function declaredName(statement: ts.Statement): string {
  const declaration = ts.isVariableStatement(statement)
    ? statement.declarationList.declarations[0]
    : statement;
  const { name } = declaration as { name?: ts.Node };
  return name === undefined ? statement.getText() : name.getText();
}

function isExportedDeclaration(statement: ts.Statement): boolean {
  return (
    ts.canHaveModifiers(statement) &&
    (ts.getModifiers(statement) ?? []).some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword)
  );
}

/** Folders of tests whose subject is the engine as a whole. */
const wholeEngine = [
  'test/crash',
  'test/faults',
  'test/fuzz',
  'test/model',
  'test/schedules',
  'test/stress',
];

test('tests lie where their subject lies', () => {
  const wrong = filesBelow(['test'], ['.ts']).filter(({ name }) => {
    const folder = path.posix.dirname(name);
    if (['test', 'test/support', ...wholeEngine].includes(folder)) return false;
    const mirrored = folder.slice('test/'.length);
    return ![`src/${mirrored}`, mirrored].some((place) =>
      existsSync(path.join(projectFolder, place)),
    );
  });
  assert.deepEqual(names(wrong), []);
});

test('nothing is left for later, nobody prints behind the command line, nothing is `any`', () => {
  const wrong: string[] = [];
  for (const source of allTypeScript) {
    if (/\b(?:TO-?DO|FIX-?ME|X{3})\b/.test(source.text)) wrong.push(`${source.name} is unfinished`);
    const mayPrint = /^(?:src\/cli|scripts|bench)\//.test(source.name);
    visit(parse(source), (node) => {
      if (node.kind === ts.SyntaxKind.AnyKeyword) wrong.push(`${source.name} uses any`);
      if (!mayPrint && ts.isPropertyAccessExpression(node)) {
        if (node.expression.getText() === 'console') wrong.push(`${source.name} prints`);
      }
    });
  }
  assert.deepEqual(wrong, []);
});

test('no BigInt on the hot path', () => {
  const hot = sources.filter(({ name }) => /^src\/(?:engine\/|format\/qcow2\/mapping)/.test(name));
  const wrong: string[] = [];
  for (const source of hot) {
    visit(parse(source), (node) => {
      const isCall = ts.isCallExpression(node) && node.expression.getText() === 'BigInt';
      if (isCall || ts.isBigIntLiteral(node)) wrong.push(source.name);
    });
  }
  assert.deepEqual(wrong, []);
});

test('no path of somebody’s machine', () => {
  const texts = [
    ...allTypeScript,
    ...filesBelow(['docs', '.ci', 'native'], ['']),
    ...filesBelow(['scripts', 'fixtures'], ['.mjs', '.sh', '.json', '.md']),
    ...filesBelow(['.'], ['.md', '.json', '.js']).filter(({ name }) => !name.includes('/')),
  ];
  const personal = /\/(?:home|root|Users|work|mnt)\/[\w.-]+/;
  assert.deepEqual(names(texts.filter(({ text }) => personal.test(text))), []);
});

function names(files: readonly SourceText[]): readonly string[] {
  return files.map(({ name }) => name);
}

test('docs/concurrency.md names every shared word', () => {
  const text = readFileSync(path.join(projectFolder, 'docs', 'concurrency.md'), 'utf8');
  const missing: string[] = [];
  for (const [file, constant] of [
    ['src/engine/control-block.ts', 'ControlWord'],
    ['src/engine/control-block.ts', 'QueueWord'],
    ['src/engine/slice-cache.ts', 'Word'],
    ['src/engine/slice-cache.ts', 'SetWord'],
  ]) {
    const source = sources.find(({ name }) => name === file)!;
    visit(parse(source), (node) => {
      if (!ts.isVariableDeclaration(node) || node.name.getText() !== constant) return;
      visit(node, (inner) => {
        if (!ts.isPropertyAssignment(inner)) return;
        const word = inner.name.getText();
        if (!new RegExp(`\\b${word}\\b`).test(text)) missing.push(`${constant}.${word}`);
      });
    });
  }
  assert.deepEqual(missing, []);
});
