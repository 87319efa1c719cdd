/** When V8 optimises what the program runs. */
import { setFlagsFromString } from 'node:v8';

/** Bytes of bytecode that a function runs until V8 considers it: eight times what V8 begins with. */
const lateBudget = 1_048_576;
const usualBudget = 131_072;

/** By then a command is a long one. */
const longRunMs = 1000;

/**
 * Has V8 optimise less while the program may be about to end: compiling takes the processors from the
 * copying, and delays the end, which waits for it. Later versions of Node than 20 have a quick compiler for the
 * beginning, and no such option.
 */
export function optimiseLate(): void {
  if (!process.version.startsWith('v20.')) return;
  setBudget(lateBudget);
  setTimeout(setBudget, longRunMs, usualBudget).unref();
}

function setBudget(bytes: number): void {
  setFlagsFromString(`--interrupt-budget=${bytes}`);
}
