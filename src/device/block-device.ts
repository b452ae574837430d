/**
 * The one interface of the device stack: snapshot, cache, overlay each take a device below and are
 * one above. Offsets and lengths are bytes, of any alignment; a range must lie inside the device.
 * A read either gives all its bytes or throws (a Failure, common/failure.ts): never fewer bytes,
 * never zeros in place of data that could not be had.
 */

/**
 * A run of bytes that was written, zeros included (`data`), or never was and reads as zeros (`hole`).
 * A hole is absent from a snapshot: a volume made of it may read as anything there.
 */
export interface Extent {
  readonly offset: number;
  readonly length: number;
  readonly kind: "data" | "hole";
}

/**
 * Bytes lent by the device that holds them, so that a reply can be written without a copy. The
 * parts, joined, are the range asked for. They stay valid and unchanged until `release`, which must
 * be called exactly once.
 */
export interface View {
  readonly parts: readonly Uint8Array[];
  release(): void;
}

/** A random-access disk. */
export interface BlockDevice {
  /** Bytes; a whole number of sectors. */
  readonly size: number;
  /**
   * Fills `target` with the bytes at `offset`; once it has settled, target is not touched any more.
   * @param signal a device that can wait long stops waiting on abort and throws Failure EINTR.
   */
  read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void>;
  /** As read, without a copy where the device can lend its own memory. */
  view(offset: number, length: number, signal?: AbortSignal): Promise<View>;
  /**
   * The extents that cover [offset, offset + length), ascending and without gaps. Adjacent extents
   * may be of one kind. Listing is lazy: stop iterating and nothing more is asked of the service.
   */
  extents(offset: number, length: number): AsyncIterable<Extent>;
  /**
   * Bytes known to be written (holes excluded), for st_blocks; undefined while not known without
   * asking the service.
   */
  allocatedBytes(): number | undefined;
  close(): Promise<void>;
}

/** A disk that can be written. What a write returned for is seen by every later read. */
export interface WritableBlockDevice extends BlockDevice {
  write(offset: number, source: Uint8Array): Promise<void>;
  /** Writes zeros: data, as any other. */
  zero(offset: number, length: number): Promise<void>;
  /**
   * Turns the range to zeros that are not needed: a hole, where there is no data below.
   * @throws Failure EOPNOTSUPP where discards are not taken; then nothing has changed.
   */
  discard(offset: number, length: number): Promise<void>;
  /** Resolves when everything written before the call is durable on the local disk. */
  flush(): Promise<void>;
}

export function isWritable(device: BlockDevice): device is WritableBlockDevice {
  return "write" in device;
}

/** `view` for a device that has no memory of its own to lend. */
export async function viewByCopy(
  device: Pick<BlockDevice, "read">,
  offset: number,
  length: number,
  signal?: AbortSignal,
): Promise<View> {
  const bytes = Buffer.allocUnsafeSlow(length);
  await device.read(offset, bytes, signal);
  return { parts: [bytes], release: () => {} };
}
