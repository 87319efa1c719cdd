/**
 * Images that are still open when this thread's work is over. When the event loop has nothing left to
 * do they are closed; where the thread ends at once, by `process.exit` or an error, a warning names
 * them, since what was written to them and not flushed is lost.
 */

/** What can be left open. */
export interface Closable {
  readonly filename: string;
  close(): Promise<void>;
}

/** What is open, and whether something may be lost with it. */
const open = new Map<Closable, boolean>();
let isWatching = false;

/**
 * Notes that something is open.
 *
 * @param mayLose whether something may have been written to it, so that there is a warning
 * @returns takes that back
 */
export function noteOpen(closable: Closable, mayLose: boolean): () => void {
  if (!isWatching) {
    isWatching = true;
    process.on('beforeExit', closeAll);
    process.on('exit', warn);
  }
  open.set(closable, mayLose);
  return () => {
    open.delete(closable);
  };
}

/** Has this thread end without a word about what is open: whoever ends it knows. */
export function forgetOpen(): void {
  open.clear();
}

function closeAll(): void {
  for (const closable of open.keys()) {
    closable.close().catch((error: unknown) => {
      process.exitCode ??= 1;
      process.emitWarning(error instanceof Error ? error : String(error));
    });
  }
}

function warn(): void {
  for (const [{ filename }, mayLose] of open) {
    if (!mayLose) continue;
    const message = `'${filename}' was not closed: what was written to it and not flushed is lost`;
    const warning = Object.assign(new Error(message), {
      name: 'Warning',
      code: 'COWHERD_LEFT_OPEN',
      stack: `Warning: ${message}`,
    });
    // Not emitWarning, which waits for a turn of the event loop that does not come.
    process.emit('warning', warning);
  }
}
