/**
 * Images that are still open when this thread's work is over. When the event loop has nothing left to
 * do they are closed; where the thread ends at once, by `process.exit` or an error, a warning names
 * them, since what was written to them and not flushed is lost.
 */

/** What can be left open. */
export interface Closable {
  readonly filename: string;
  readonly readOnly: boolean;
  close(): Promise<void>;
}

const open = new Set<Closable>();
let isWatching = false;

/** Notes that something is open. @returns takes that back */
export function noteOpen(closable: Closable): () => void {
  if (!isWatching) {
    isWatching = true;
    process.on('beforeExit', closeAll);
    process.on('exit', warn);
  }
  open.add(closable);
  return () => {
    open.delete(closable);
  };
}

function closeAll(): void {
  for (const closable of open) {
    closable.close().catch((error: unknown) => {
      process.exitCode ??= 1;
      process.emitWarning(error instanceof Error ? error : String(error));
    });
  }
}

function warn(): void {
  for (const { filename, readOnly } of open) {
    if (readOnly) continue;
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
