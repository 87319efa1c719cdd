/** Projects of other people, into which the packed package was installed. */
import { mkdir, readFile, realpath, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { findTool, projectFolder, run, runOk, type RunResult } from './tools.js';

/** What is read of a package.json. */
interface Manifest {
  readonly dependencies?: Readonly<Record<string, string>>;
}

/** An empty project with the package in it, and a PATH that has Node and no more. */
export interface Consumer {
  readonly folder: string;
  readonly searchPath: string;
}

/** Runs npm without a network, and without scripts; whatever it has to fetch is an error. */
export async function npm(words: readonly string[], cwd: string): Promise<string> {
  const script = await realpath(findTool('npm')!);
  return runOk(process.execPath, [script, ...words, '--offline', '--no-audit', '--no-fund'], {
    cwd,
    env: { npm_config_ignore_scripts: 'true', npm_config_loglevel: 'error' },
  });
}

async function pack(source: string, target: string): Promise<string> {
  const name = await npm(['pack', source, '--pack-destination', target], target);
  return path.join(target, name.trim());
}

/** The packages that the project needs when it runs, with those that they need. */
async function runtimeDependencies(): Promise<readonly string[]> {
  const needed = new Set<string>();
  const visit = async (folder: string): Promise<void> => {
    const text = await readFile(path.join(folder, 'package.json'), 'utf8');
    for (const name of Object.keys((JSON.parse(text) as Manifest).dependencies ?? {})) {
      if (needed.has(name)) continue;
      needed.add(name);
      await visit(path.join(projectFolder, 'node_modules', name));
    }
  };
  await visit(projectFolder);
  return [...needed];
}

/**
 * Installs the packed project into a new one, its dependencies coming from tarballs too instead of a
 * registry.
 *
 * @param parent an empty folder for it and what it needs
 */
export async function installPacked(parent: string): Promise<Consumer> {
  const folder = path.join(parent, 'project');
  const searchPath = path.join(parent, 'bin');
  const tarballs = path.join(parent, 'tarballs');
  for (const each of [folder, searchPath, tarballs]) await mkdir(each);
  await symlink(process.execPath, path.join(searchPath, 'node'));
  await writeFile(path.join(folder, 'package.json'), '{ "private": true, "type": "module" }');
  const packed = [await pack(projectFolder, tarballs)];
  for (const name of await runtimeDependencies()) {
    packed.push(await pack(path.join(projectFolder, 'node_modules', name), tarballs));
  }
  await npm(['install', '--ignore-scripts', ...packed], folder);
  return { folder, searchPath };
}

/** Runs a program in the project. */
export function runIn(
  { folder, searchPath }: Consumer,
  command: string,
  words: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<RunResult> {
  return run(command, words, { cwd: folder, env: { PATH: searchPath, ...env } });
}
