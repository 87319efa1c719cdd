/** The tree's own rules: layering, size, documentation and style, held by a test, not by habit. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import ts from 'typescript';
import { formatNames } from '../src/format/registry.js';
import { filterList } from '../src/storage/filters/registry.js';
import { type SourceText, filesBelow, isExported, parse, visit } from './support/source-tree.js';
import { projectFolder } from './support/tools.js';
import {
  type Layers,
  deadExports,
  importCircles,
  messageReaders,
  namedOutside,
  upwardBetweenRooms,
  upwardImports,
  wrongDependencies,
} from './support/tree-rules.js';

const sources = filesBelow(['src'], ['.ts']);
const allTypeScript = [
  ...sources,
  ...filesBelow(['test', 'bench', 'fixtures', 'scripts'], ['.ts']),
];

/** What each layer may import besides itself and the leaves. */
const layers: Layers = {
  cli: [
    'src/export/',
    'src/jobs/',
    'src/image/',
    'src/native/descriptor',
    'src/native/file-position',
    'src/native/restart',
  ],
  export: [
    'src/image/',
    'src/nbd/',
    'src/native/aligned-buffer',
    'src/native/descriptor',
    'src/native/mapped-memory',
    'src/native/thread-affinity',
  ],
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
    'src/native/aligned-buffer',
  ],
  format: [
    'src/engine/',
    'src/storage/',
    'src/native/aligned-buffer',
    'src/native/codec',
    'src/native/host-capacity',
    'src/native/sector-cipher',
    'src/native/zero-scan',
  ],
  engine: ['src/storage/'],
  storage: ['src/native/', 'src/nbd/'],
  native: [],
  nbd: [],
};
const leaves = [
  'src/abort-signal.ts',
  'src/byte-names.ts',
  'src/clock.ts',
  'src/errors.ts',
  'src/limits.ts',
  'src/package-folder.ts',
  'src/rate-budget.ts',
  'src/size.ts',
  'src/switch.ts',
  'src/system-errors.ts',
  'src/turn-of-others.ts',
];

/** The rooms of folders that have some, from the ground up; `''` is what lies beside them. */
const rooms: Readonly<Record<string, readonly string[]>> = {
  'src/engine/': ['words', 'queues', 'cache', 'space', 'flush', ''],
  'src/image/': [
    'api',
    'names',
    'options',
    'streams',
    'pipeline',
    'report',
    'graph',
    'threads',
    '',
  ],
  'src/export/': ['sockets', 'nbd', 'vhost-user-blk', 'fuse', ''],
  'src/cli/': ['process', 'text', 'options', 'io', 'commands', ''],
  'src/format/qcow2/': [
    'layout',
    'tables',
    'contents',
    'overlap',
    'refcount',
    'metadata',
    'requests',
    'report',
    'check',
    'change',
    '',
  ],
  'src/format/qcow2/check/': ['findings', 'tables', 'counts', 'threads', 'repair', ''],
};

test('imports point downwards only', () => {
  const inside = sources.filter(({ name }) => name !== 'src/index.ts');
  assert.deepEqual(upwardImports(inside, layers, leaves), []);
});

test('imports between the rooms of a folder point downwards only', () => {
  const wrong = Object.entries(rooms).flatMap(([folder, order]) =>
    upwardBetweenRooms(sources, folder, order),
  );
  assert.deepEqual(wrong, []);
});

test('nothing outside its folder names a format, a protocol or a filter', () => {
  const formats = ['luks', ...formatNames()];
  // NBD is a way to serve images too.
  const protocols = ['host_device', 'https', 's3'];
  // They are names of options too.
  const options = ['rate', 'readahead', 'trace'];
  const filters = filterList().flatMap(({ name }) => (options.includes(name) ? [] : [name]));
  assert.ok(formats.length > 2 && filters.length > 1);
  const inside = sources.filter(({ name }) => name !== 'src/index.ts');
  assert.deepEqual(
    [
      ...namedOutside(inside, 'src/format/', [...formats, 'mapped'], formats),
      ...namedOutside(inside, 'src/storage/', ['file', 'http', 'memory'], protocols),
      ...namedOutside(inside, 'src/storage/filters/', [], filters),
    ],
    [],
  );
});

test('no code reads a message', () => {
  // V8 and the decoders of xz and bzip2 say by nothing else what they met.
  const foreign = ['src/errors.ts', 'src/storage/packed/bzip2.ts', 'src/storage/packed/xz.ts'];
  const inside = sources.filter(({ name }) => !foreign.includes(name));
  assert.deepEqual(messageReaders(inside), []);
});

test('no files import each other in a circle', () => {
  assert.deepEqual(importCircles(sources), []);
});

test('everything that is exported is imported somewhere', () => {
  const users = [...allTypeScript, ...filesBelow(['scripts'], ['.mjs'])];
  assert.deepEqual(deadExports(sources, users, ['src/index.ts']), []);
});

test('packages are declared if they are used, and used if they are declared', () => {
  const { dependencies, devDependencies, scripts } = JSON.parse(
    readFileSync(path.join(projectFolder, 'package.json'), 'utf8'),
  ) as Record<'dependencies' | 'devDependencies' | 'scripts', Record<string, string>>;
  const code = [
    ...allTypeScript,
    ...filesBelow(['scripts'], ['.mjs']),
    ...filesBelow(['.'], ['.js']).filter(({ name }) => !name.includes('/')),
  ];
  const settings = [
    { name: 'scripts', text: Object.values(scripts).join('\n') },
    ...filesBelow(['scripts'], ['.mjs']),
    ...filesBelow(['.'], ['.gyp', 'tsconfig.json']),
  ];
  const declared = [...Object.keys(dependencies), ...Object.keys(devDependencies)];
  assert.deepEqual(wrongDependencies(code, declared, settings), []);
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
      else if (isExported(statement)) {
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

/** Folders of tests whose subject is the engine as a whole. */
const wholeEngine = [
  'test/crash',
  'test/crash/chain',
  'test/crash/mapped',
  'test/faults',
  'test/fuzz',
  'test/fuzz/conversations',
  'test/model',
  'test/schedules',
  'test/stress',
  'test/twins',
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
  const hot = sources.filter(({ name }) =>
    /^src\/(?:engine\/|format\/qcow2\/layout\/plan)/.test(name),
  );
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
    ['src/engine/words/control-block.ts', 'ControlWord'],
    ['src/engine/words/control-block.ts', 'QueueWord'],
    ['src/engine/cache/slice-cache.ts', 'Word'],
    ['src/engine/cache/slice-cache.ts', 'SetWord'],
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

test('docs/concurrency.md has every file that waits for others in its table', () => {
  const text = readFileSync(path.join(projectFolder, 'docs', 'concurrency.md'), 'utf8');
  const section = text.slice(text.indexOf('## Every wait'), text.indexOf('## Why the rules'));
  const waits = /new Promise\b|\.wait\(|\.watch\??\.?\(/;
  const comments = /\/\*.*?\*\/|\/\/[^\n]*/gs;
  const waiting = sources.filter(
    ({ name, text: source }) =>
      /^src\/(?:engine|format\/qcow2)\//.test(name) && waits.test(source.replace(comments, '')),
  );
  assert.ok(waiting.length > 10);
  const missing = waiting.filter(
    ({ name }) => !section.includes(`\`${path.basename(name, '.ts')}\``),
  );
  assert.deepEqual(names(missing), []);
});

test('guest data of qcow2 pass the payload, and nothing goes around it', () => {
  const around = sources.filter(
    ({ name, text }) =>
      /^src\/format\/qcow2\/requests\/(?!payload|compressed-)/.test(name) &&
      /\b(?:file|dataFile)\.(?:read|write|submit|copyFrom|dataCopier)/i.test(text),
  );
  assert.deepEqual(names(around), []);
});
