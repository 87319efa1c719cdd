/** Loaded before a program: leaves its peak memory, in KiB, in the file that the environment names. */
import { writeFileSync } from 'node:fs';

process.on('exit', () => {
  const report = process.env['COWHERD_MEMORY_REPORT'];
  if (report !== undefined) writeFileSync(report, String(process.resourceUsage().maxRSS));
});
