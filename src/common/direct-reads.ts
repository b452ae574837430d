/**
 * How cached reads are answered in the thread that takes them from the kernel: what the driver calls, and
 * the cache implements, without either knowing the other.
 */

/**
 * Code and shared memory for another thread: `module` exports `openDirectReader(data): DirectReader`.
 * The driver's thread imports it and asks it before it sends a read to the main thread.
 */
export interface DirectReads {
  /** file: URL of built JavaScript. */
  readonly module: string;
  /** Survives structured clone (numbers, SharedArrayBuffers). */
  readonly data: unknown;
}

export interface DirectReader {
  /**
   * The bytes of a read if all of them are in memory, lent until `done`; undefined to have the main
   * thread answer. Synchronous; never throws.
   */
  tryRead(inode: number, offset: number, length: number): readonly Uint8Array[] | undefined;
  /** Gives back what the last successful tryRead lent. */
  done(): void;
}
