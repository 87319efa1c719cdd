// Answers `--help` of a script: prints the comment it begins with, and ends.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** @param {string} script the script's `import.meta.url` */
export function answerHelp(script) {
  const words = process.argv.slice(2);
  const own = words.includes('--') ? words.slice(0, words.indexOf('--')) : words;
  if (!own.includes('--help') && !own.includes('-h')) return;
  const text = readFileSync(fileURLToPath(script), 'utf8');
  const comment = /^(?:\/\*\*\n[^]*?\*\/|(?:\/\/[^\n]*\n)+)/.exec(text)?.[0] ?? '';
  const lines = comment.split('\n').map((line) => line.replace(/^ ?(?:\/\*\*|\*\/|\*|\/\/) ?/, ''));
  console.log(lines.join('\n').trim());
  process.exit(0);
}
