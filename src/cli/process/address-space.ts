/** Running where the address space of a process is limited, as some services do with qemu-img. */
import { readFileSync } from 'node:fs';
import { restartWith } from '../../native/restart.js';

/** Bytes below which what is reserved for nothing may be missing elsewhere. */
const plentyBytes = 4 * 1024 ** 3;

/** Of the C library: into how many arenas it divides what it allocates. */
const variable = 'MALLOC_ARENA_MAX';

/**
 * Of a limited address space V8 reserves half a gigabyte, and the C library 64 MiB for each of V8's
 * threads, before this program begins; so it begins again with one arena for all threads.
 */
export function spareAddressSpace(): void {
  if (process.env[variable] !== undefined) return;
  let limit: string | undefined;
  try {
    const limits = readFileSync('/proc/self/limits', 'utf8');
    limit = /^Max address space +(\d+)/m.exec(limits)?.[1];
  } catch {
    // Nothing is known of a limit.
  }
  if (limit !== undefined && Number(limit) < plentyBytes) restartWith(variable, '1');
}
