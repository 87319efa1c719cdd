/** Runs the recipes of docs/recipes.md as printed. QEMU's tools are the guest, and the judge of what they make. */
import assert from 'node:assert/strict';
import { readFile, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import {
  type Snippet,
  type Workplace,
  commandLines,
  documentText,
  runLine,
  runScript,
  snippetsOf,
  workplace,
} from './support/printed.js';
import { needsTool, runOk } from './support/tools.js';

const [, ...sections] = (await documentText('docs/recipes.md')).split(/^## /m);
const recipes = new Map(
  sections.map((text) => [text.slice(0, text.indexOf('\n')), snippetsOf(text)]),
);
/** The blocks of a recipe in a language, in their order; there are as many as its test runs. */
function blocks(title: string, language: string, count: number): readonly Snippet[] {
  const found = (recipes.get(title) ?? []).filter((snippet) => snippet.language === language);
  assert.equal(found.length, count, `blocks of ${language} in ‘${title}’`);
  return found;
}

/** A recipe's place, in which there are a disk and QEMU's tools; undefined where these are missing. */
class RecipePlace {
  readonly #workplace: Workplace;

  private constructor(folder: Workplace) {
    this.#workplace = folder;
  }

  static async open(
    t: TestContext,
    disk: string,
    size: string,
    writes: readonly string[],
  ): Promise<RecipePlace | undefined> {
    if (!needsTool(t, 'qemu-img', 'qemu-io')) return undefined;
    const place = new RecipePlace(await workplace(t));
    await place.qemuImg('create', '-f', 'qcow2', disk, size);
    await place.guest(disk, ...writes);
    return place;
  }

  qemuImg(...words: readonly string[]): Promise<string> {
    return runOk('qemu-img', words, { cwd: this.#workplace.folder });
  }

  /** What a guest does to a disk: commands of qemu-io. */
  async guest(disk: string, ...commands: readonly string[]): Promise<void> {
    const words = commands.flatMap((command) => ['-c', command]);
    await runOk('qemu-io', ['-d', 'unmap', ...words, disk], { cwd: this.#workplace.folder });
  }

  async commands(snippet: Snippet): Promise<void> {
    for (const line of commandLines(snippet)) await runLine(line, this.#workplace);
  }

  async program(snippet: Snippet): Promise<void> {
    await runScript(snippet, 'program.mjs', this.#workplace);
  }

  file(name: string): string {
    return path.join(this.#workplace.folder, name);
  }

  /** Keeps what a disk shows now. @returns the name of the copy */
  async keep(disk: string, name: string): Promise<string> {
    await this.qemuImg('convert', '-O', 'qcow2', disk, name);
    return name;
  }

  /** Has an image be sound, of its chain the top one, and show the same disk as another. */
  async judge(image: string, disk: string): Promise<void> {
    assert.match(await this.qemuImg('check', image), /^No errors were found on the image\.$/m);
    assert.match(await this.qemuImg('compare', image, disk), /Images are identical\.\n$/);
  }

  async info(image: string): Promise<Readonly<Record<string, unknown>>> {
    const text = await this.qemuImg('info', '--output=json', image);
    return JSON.parse(text) as Readonly<Record<string, unknown>>;
  }

  /** Where an image itself holds something, and what lies below it does not. */
  async held(image: string): Promise<readonly (readonly [number, number])[]> {
    const text = await this.qemuImg('map', '--output=json', image);
    const extents = JSON.parse(text) as readonly {
      readonly start: number;
      readonly length: number;
      readonly depth: number;
      readonly present: boolean;
    }[];
    return extents
      .filter(({ depth, present }) => present && depth === 0)
      .map(({ start, length }) => [start, length]);
  }
}

const kib = 1024;
const mib = 1024 * kib;
const gib = 1024 * mib;

test('the page has the recipes that are run here, in blocks of commands and of programs', () => {
  assert.deepEqual(
    [...recipes.keys()],
    [
      'Back up what has changed',
      'Thin clones',
      'Shrink an image',
      'Encrypt an image',
      'Grow a cloud image',
    ],
  );
  for (const { language } of [...recipes.values()].flat()) assert.match(language, /^(?:sh|js)$/);
});

test('back up what has changed', async (t) => {
  const title = 'Back up what has changed';
  const [full, monday, tuesday, restore, fold] = blocks(title, 'sh', 5);
  const [increment] = blocks(title, 'js', 1);
  const place = await RecipePlace.open(t, 'disk.qcow2', '64M', ['write -P 1 0 8M']);
  if (place === undefined) return;
  await place.commands(full);
  await place.judge('full.qcow2', 'disk.qcow2');
  await writeFile(place.file('increment.mjs'), increment.text);

  await place.guest('disk.qcow2', 'write -P 2 4M 128k', 'write -z 1M 64k', 'write -P 3 63M 1M');
  await place.commands(monday);
  await place.judge('monday.qcow2', 'disk.qcow2');
  assert.deepEqual(await place.held('monday.qcow2'), [
    [mib, 64 * kib],
    [4 * mib, 128 * kib],
    [63 * mib, mib],
  ]);
  const asOfMonday = await place.keep('disk.qcow2', 'as-of-monday.qcow2');

  await place.guest('disk.qcow2', 'write -P 4 20M 64k', 'discard 4M 64k');
  // A run that was cut off has left some of its increment.
  await place.qemuImg(
    'create',
    '-f',
    'qcow2',
    '-b',
    'monday.qcow2',
    '-F',
    'qcow2',
    'tuesday.qcow2',
  );
  await place.guest('tuesday.qcow2', 'write -P 5 0 64k');
  await place.commands(tuesday);
  await place.judge('tuesday.qcow2', 'disk.qcow2');
  assert.deepEqual(await place.held('tuesday.qcow2'), [
    [4 * mib, 64 * kib],
    [20 * mib, 64 * kib],
  ]);
  await place.judge('monday.qcow2', asOfMonday);

  await place.commands(restore);
  await place.judge('restored.qcow2', asOfMonday);
  assert.equal((await place.info('restored.qcow2'))['backing-filename'], undefined);

  await place.commands(fold);
  await place.judge('full.qcow2', asOfMonday);
  await place.judge('tuesday.qcow2', 'disk.qcow2');
  assert.equal((await place.info('tuesday.qcow2'))['backing-filename'], 'full.qcow2');
});

test('thin clones', async (t) => {
  const [make, rebase, fold] = blocks('Thin clones', 'sh', 3);
  const [makeByProgram, foldByProgram] = blocks('Thin clones', 'js', 2);
  for (const byProgram of [false, true]) {
    const place = await RecipePlace.open(t, 'base.qcow2', '64M', ['write -P 1 0 8M']);
    if (place === undefined) return;
    const base = await readFile(place.file('base.qcow2'));
    await (byProgram ? place.program(makeByProgram) : place.commands(make));
    for (const clone of ['web.qcow2', 'mail.qcow2']) {
      await place.judge(clone, 'base.qcow2');
      assert.deepEqual(await place.held(clone), []);
    }
    await place.guest('web.qcow2', 'write -P 2 1M 64k', 'write -z 2M 64k');
    await place.guest('mail.qcow2', 'write -P 3 4M 64k');
    const web = await place.keep('web.qcow2', 'web-kept.qcow2');
    const mail = await place.keep('mail.qcow2', 'mail-kept.qcow2');
    assert.ok(base.equals(await readFile(place.file('base.qcow2'))));

    if (byProgram) await place.program(foldByProgram);
    else {
      await place.commands(rebase);
      await place.judge('mail.qcow2', mail);
      assert.equal((await place.info('mail.qcow2'))['backing-filename'], 'newer.qcow2');
      await place.commands(fold);
    }
    await place.judge('newer.qcow2', web);
    await place.judge('mail.qcow2', mail);
    assert.equal((await place.info('mail.qcow2'))['backing-filename'], undefined);
    await place.judge('base.qcow2', web);
    assert.deepEqual(await place.held('web.qcow2'), []);
  }
});

test('shrink an image', async (t) => {
  const [convert, resize] = blocks('Shrink an image', 'sh', 2);
  const [convertByProgram, resizeByProgram] = blocks('Shrink an image', 'js', 2);
  for (const byProgram of [false, true]) {
    const place = await RecipePlace.open(t, 'disk.qcow2', '20G', [
      'write -P 1 0 4M',
      'write -P 2 1G 8M',
      'write -P 3 2G 8M',
    ]);
    if (place === undefined) return;
    // One guest discards, another fills with zeroes; both have less than their image.
    await place.guest('disk.qcow2', 'discard 1G 8M', 'write -P 0 2G 8M');
    const before = await stat(place.file('disk.qcow2'));
    await (byProgram ? place.program(convertByProgram) : place.commands(convert));
    for (const [image, most] of [
      ['small.qcow2', 5 * mib],
      ['smallest.qcow2', mib],
    ] as const) {
      await place.judge(image, 'disk.qcow2');
      const { size, blocks: sectors } = await stat(place.file(image));
      assert.ok(size < before.size && sectors * 512 < most, `${image}: ${size}, ${sectors}`);
    }
    await (byProgram ? place.program(resizeByProgram) : place.commands(resize));
    assert.equal((await place.info('small.qcow2'))['virtual-size'], 10 * gib);
    await place.judge('small.qcow2', 'disk.qcow2');
  }
});

/** A block that makes keys of passwords, as printed, but for the seconds that it takes over each. */
function hastened({ language, text }: Snippet): Snippet {
  return {
    language,
    text: text
      .replaceAll(/encrypt\.(format=luks|state=active)/g, '$&,encrypt.iter-time=10')
      .replaceAll(/(format: 'luks'|state: 'active')/g, '$&, iterTime: 10'),
  };
}

/** The words by which QEMU's tools open `secret.qcow2` with a password. */
function unlocked(password: string): readonly string[] {
  const image = 'driver=qcow2,file.filename=secret.qcow2,encrypt.key-secret=key';
  return ['--object', `secret,id=key,data=${password}`, '--image-opts', image];
}

test('encrypt an image', async (t) => {
  const [encrypt, change] = blocks('Encrypt an image', 'sh', 2).map(hastened);
  const [program] = blocks('Encrypt an image', 'js', 1).map(hastened);
  for (const byProgram of [false, true]) {
    const place = await RecipePlace.open(t, 'disk.qcow2', '64M', ['write -P 0x63 0 4M']);
    if (place === undefined) return;
    const judge = async (password: string): Promise<void> => {
      const words = unlocked(password);
      assert.match(await place.qemuImg('check', ...words), /^No errors were found/m);
      const plain = 'driver=qcow2,file.filename=disk.qcow2';
      const compared = await place.qemuImg('compare', ...words, plain);
      assert.equal(compared, 'Images are identical.\n');
    };
    if (byProgram) await place.program(program);
    else {
      await place.commands(encrypt);
      await judge('correct horse');
      await place.commands(change);
    }
    await judge('battery staple');
    await assert.rejects(judge('correct horse'), /Invalid password, cannot unlock any keyslot/);
    const stored = await readFile(place.file('secret.qcow2'));
    assert.equal(stored.indexOf(Buffer.alloc(32, 0x63)), -1);
  }
});

test('grow a cloud image', async (t) => {
  const [over, alone] = blocks('Grow a cloud image', 'sh', 2);
  const [program] = blocks('Grow a cloud image', 'js', 1);
  for (const byProgram of [false, true]) {
    const place = await RecipePlace.open(t, 'cloud.qcow2', '2G', ['write -P 1 0 4M']);
    if (place === undefined) return;
    if (byProgram) await place.program(program);
    else for (const snippet of [over, alone]) await place.commands(snippet);
    for (const [image, size] of [
      ['machine.qcow2', 20 * gib],
      ['alone.qcow2', 30 * gib],
    ] as const) {
      assert.equal((await place.info(image))['virtual-size'], size);
      // What is beyond the smaller disk has to be zero.
      await place.judge(image, 'cloud.qcow2');
      // The guest has use of what was added.
      await place.guest(image, `write -P 2 ${size - mib} 1M`, `read -P 2 ${size - mib} 1M`);
      await place.guest(image, 'read -P 1 0 4M', 'read -P 0 2G 1M');
      assert.match(await place.qemuImg('check', image), /^No errors were found/m);
    }
    assert.equal((await place.info('machine.qcow2'))['backing-filename'], 'cloud.qcow2');
    assert.equal((await place.info('alone.qcow2'))['backing-filename'], undefined);
  }
});
