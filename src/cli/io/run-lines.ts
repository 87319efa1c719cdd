/** Runs the lines that the exerciser is given, or reads. */
import { nameOfBytes } from '../../byte-names.js';
import { standardInput } from '../process/standard-streams.js';
import { findIoCommand } from './command-table.js';
import type { Exerciser } from './exerciser.js';
import { IoFailure } from './failure.js';
import { runIoCommand, wordsOf } from './io-command.js';

/**
 * Runs lines one after the other, until one of them ends that. Failures are told where they happen.
 *
 * @returns whether all did what they say
 */
export async function runLines(lines: Iterable<string>, exerciser: Exerciser): Promise<boolean> {
  let isGood = true;
  for (const line of lines) {
    if (exerciser.isDone) break;
    isGood = (await runLine(line, exerciser)) && isGood;
  }
  return isGood;
}

/**
 * The same with the lines of standard input.
 *
 * @param hasPrompt whether the program's name is printed before each of them
 */
export async function runInput(exerciser: Exerciser, hasPrompt: boolean): Promise<boolean> {
  const { session } = exerciser;
  const prompt = async (): Promise<void> => {
    if (!hasPrompt) return;
    await session.print(`${session.name}> `);
    await session.flush();
  };
  let isGood = true;
  await prompt();
  for await (const line of inputLines(exerciser)) {
    isGood = (await runLine(line, exerciser)) && isGood;
    if (exerciser.isDone) break;
    await prompt();
  }
  return isGood;
}

/** The lines of standard input as they come; names in them need not be UTF-8. */
async function* inputLines({ session }: Exerciser): AsyncGenerator<string> {
  let held = Buffer.alloc(0);
  for await (const chunk of standardInput(session)) {
    held = Buffer.concat([held, chunk]);
    for (let end; (end = held.indexOf('\n')) !== -1; held = held.subarray(end + 1)) {
      yield nameOfBytes(held.subarray(0, end));
    }
  }
  if (held.length > 0) yield nameOfBytes(held);
}

async function runLine(line: string, exerciser: Exerciser): Promise<boolean> {
  const { signal } = exerciser.session;
  try {
    const [name, ...words] = wordsOf(line) as readonly [string?, ...string[]];
    if (name === undefined) return true;
    const command = findIoCommand(name);
    if (command === undefined) throw new IoFailure(`command "${name}" not found`, 'errors');
    await runIoCommand(command, words, exerciser);
    signal.throwIfAborted();
    return true;
  } catch (error) {
    if (signal.aborted) throw error;
    await exerciser.tell(error);
    return false;
  }
}
