/** What unpacks files of one kind. */

/** Unpacks what comes piece by piece. @throws Error saying what is wrong with it */
export type Unpack = (packed: AsyncIterable<Uint8Array>) => AsyncIterable<Uint8Array>;
