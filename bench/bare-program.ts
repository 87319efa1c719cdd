/** Small programs in C that stand in `bench/`, compiled where the bench has its files. */
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { runProgram } from './programs.js';

const sources = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..', '..', 'bench');

/**
 * Compiles `bench/NAME.c`.
 *
 * @returns the program, or undefined, with a line about it, where there is no C compiler
 */
export async function compile(name: string, folder: string): Promise<string | undefined> {
  const program = path.join(folder, name);
  const source = path.join(sources, `${name}.c`);
  try {
    await runProgram('cc', ['-O2', '-pthread', '-o', program, source]);
    return program;
  } catch (error) {
    console.error(`no ${name}: ${String(error)}`);
    return undefined;
  }
}
