/** What the documents print for their readers, and a place where it runs as it would at theirs. */
import assert from 'node:assert/strict';
import { chmod, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { TestContext } from 'node:test';
import { cowherdForShells, nodeForShells, projectFolder, run, temporaryFolder } from './tools.js';

/** A fenced block of a document: its language and its text. */
export interface Snippet {
  readonly language: string;
  readonly text: string;
}

/** The fenced blocks of a text, in their order. */
export function snippetsOf(text: string): readonly Snippet[] {
  return [...text.matchAll(/^```(\w*)\n(.*?)^```$/gms)].map(([, language, body]) => ({
    language,
    text: body,
  }));
}

/** The text of a document, by its path in the project. */
export function documentText(name: string): Promise<string> {
  return readFile(path.join(projectFolder, name), 'utf8');
}

/** An empty folder, for which the package is installed, and `cowherd` and this `node` are found. */
export interface Workplace {
  readonly folder: string;
  readonly env: Readonly<Record<string, string>>;
}

/** Makes such a folder, which is removed when the test ends. */
export async function workplace(t: TestContext): Promise<Workplace> {
  const parent = await temporaryFolder(t);
  const [folder, bin, modules] = ['work', 'bin', 'node_modules'].map((name) =>
    path.join(parent, name),
  );
  for (const each of [folder, bin, modules]) await mkdir(each);
  await symlink(projectFolder, path.join(modules, 'cowherd'));
  for (const [name, words] of [
    ['cowherd', cowherdForShells],
    ['node', nodeForShells],
  ]) {
    const command = path.join(bin, name);
    await writeFile(command, `#!/bin/sh\nexec ${words} "$@"\n`);
    await chmod(command, 0o755);
  }
  const PATH = `${bin}${path.delimiter}${process.env['PATH'] ?? ''}`;
  return { folder, env: { PATH } };
}

/** The command lines of a block; one that ends with a backslash goes on in the next. */
export function commandLines({ text }: Snippet): readonly string[] {
  return text.trim().split(/(?<!\\)\n/);
}

/** Runs a command line, which has to succeed and to complain of nothing. @returns what it prints */
export async function runLine(line: string, { folder, env }: Workplace): Promise<string> {
  const { stdout, stderr, code } = await run('sh', ['-c', line], { cwd: folder, env });
  assert.deepEqual({ line, code, stderr }, { line, code: 0, stderr: '' });
  return stdout;
}

/** Keeps a program in a file of the folder and runs it, as `runLine` does. */
export async function runScript(
  { text }: Snippet,
  name: string,
  { folder, env }: Workplace,
): Promise<string> {
  await writeFile(path.join(folder, name), text);
  const { stdout, stderr, code } = await run(process.execPath, [name], { cwd: folder, env });
  assert.deepEqual([stderr, code], ['', 0]);
  return stdout;
}
