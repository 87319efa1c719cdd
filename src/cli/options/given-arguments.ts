/** The arguments of this process, names that are not UTF-8 included. */
import { readFileSync } from 'node:fs';
import { nameOfBytes } from '../../byte-names.js';

const replacement = '\ufffd';

/**
 * What follows the script in the command line. Node puts U+FFFD where an argument is not UTF-8; the bytes
 * are what the kernel says of the process (proc_pid_cmdline(5)).
 *
 * @param argv as `process.argv`
 */
export function givenArguments(
  argv: readonly string[],
  commandLine: () => Uint8Array = () => readFileSync('/proc/self/cmdline'),
): readonly string[] {
  const given = argv.slice(2);
  if (!given.some((word) => word.includes(replacement))) return given;
  let words: string[];
  try {
    words = nameOfBytes(commandLine()).split('\0').slice(0, -1);
  } catch {
    return given;
  }
  return words.length < given.length ? given : words.slice(words.length - given.length);
}
