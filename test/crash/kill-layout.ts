/** Where the threads of the program to be killed write. */

/** Bytes of a block, which holds one number over and over. */
export const blockBytes = 4096;
/** Blocks that a thread writes round and round; no power of two, so that tables differ. */
export const blocksOfThread = 300;
