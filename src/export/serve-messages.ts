/** What the thread that accepts clients and those that serve them tell each other. */
import type { ImageHandle } from '../image/api/image.js';
import type { ServerTls } from './nbd/tls.js';
import type { ErrorMessage } from '../image/threads/error-transfer.js';

/** An export, for a thread that has to attach its image first. */
export interface ExportOrders {
  readonly handle: ImageHandle;
  readonly name: string;
  readonly description: string | undefined;
  readonly readOnly: boolean;
  readonly bitmaps: readonly string[];
}

/** What a thread is started with. */
export interface ServeOrders {
  readonly exports: readonly ExportOrders[];
  readonly tls: ServerTls | undefined;
}

/** What a thread is told: to serve a client, or to end. */
export type ServeOrder =
  | { readonly kind: 'serve'; readonly client: number; readonly descriptor: number }
  | { readonly kind: 'close' };

/** What a thread tells: that it can serve, or could not start; that a client has gone; what went wrong; its end. */
export type ServeNews =
  | { readonly kind: 'ready' }
  | { readonly kind: 'gone'; readonly client: number }
  | { readonly kind: 'problem'; readonly why: string }
  | { readonly kind: 'closed' }
  | { readonly kind: 'failed'; readonly error: ErrorMessage };
