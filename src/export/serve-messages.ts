/** What the thread that accepts clients and those that serve them tell each other. */
import type { ImageHandle } from '../image/api/image.js';
import type { FuseOrder } from './fuse/fuse-host.js';
import type { DeviceOrder } from './vhost-user-blk/device-orders.js';
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
  /** Microseconds in which a virtqueue is looked at again and again after the last request. */
  readonly pollMicroseconds: number;
  /** The only processor that it runs on, if it is to stay there. */
  readonly processor: number | undefined;
}

/** What a thread is told: to serve a client, to do something for a device, to serve a mounted file until its end, or to end. */
export type ServeOrder =
  | { readonly kind: 'device'; readonly id: number; readonly order: DeviceOrder }
  | { readonly kind: 'mount'; readonly id: number; readonly order: FuseOrder }
  | { readonly kind: 'serve'; readonly client: number; readonly descriptor: number }
  | { readonly kind: 'close' };

/** What a thread tells: that it can serve, or could not start; that a client has gone; what went wrong; what it did for a device; its end. */
export type ServeNews =
  | { readonly kind: 'ready' }
  | { readonly kind: 'gone'; readonly client: number }
  | { readonly kind: 'problem'; readonly why: string }
  /** Of an order for a device, or for a mounted file. */
  | {
      readonly kind: 'answer';
      readonly id: number;
      readonly value: number | undefined;
      /** Why it could not be done. */
      readonly refusal: string | undefined;
    }
  | { readonly kind: 'closed' }
  | { readonly kind: 'failed'; readonly error: ErrorMessage };
